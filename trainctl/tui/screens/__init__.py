"""One screen a file. A screen asks on a thread, and widgets are given frozen answers."""
