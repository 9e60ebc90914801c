"""Speed, measured as ratios against floors of the same run; never a test."""
