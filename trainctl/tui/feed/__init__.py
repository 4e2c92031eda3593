"""What the screens ask for: one file a screen. It reads the index and the run folders, on a worker thread, and gives
frozen answers.

Nothing here knows of a screen, and no widget reads anything itself.
"""
