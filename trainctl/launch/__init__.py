"""Run folders, engine processes, and the queue that starts them."""
