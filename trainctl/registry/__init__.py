"""The index over all run folders, and the questions one can ask it."""
