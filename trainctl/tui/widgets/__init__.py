"""One widget a file. A widget draws what it is given and reads nothing."""
