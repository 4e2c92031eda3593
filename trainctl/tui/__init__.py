"""The dashboard, in Textual. It starts only when it is opened."""
