"""The dashboard in a browser, by textual-serve: one process of the dashboard a browser tab."""
