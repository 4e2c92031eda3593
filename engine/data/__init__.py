"""Data sets, and how they become training batches."""
