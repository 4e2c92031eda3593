"""Baselines beside their +TRAIN twins: which runs belong together, what differs, and whether it is real."""
