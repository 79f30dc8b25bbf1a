"""The run config: its keys, how it is read from a file, and its reference page."""
