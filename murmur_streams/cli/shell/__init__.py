"""What all commands share: the program itself, options, printing, and where runs are found."""
