"""Checkpoints and the folder of a run: where it starts, what it saves, how it resumes."""
