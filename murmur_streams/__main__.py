"""``python -m murmur_streams`` is the command line."""

from murmur_streams.cli.shell.main import main

if __name__ == "__main__":
    main()
