"""The interface to DeepSpeed: its config, validation of its keys, and its training state."""
