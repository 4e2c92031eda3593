"""What is wrong with this machine, the home and its runs, and what to do about it; no screen."""
