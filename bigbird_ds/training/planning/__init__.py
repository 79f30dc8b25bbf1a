"""What a run will need, before it starts: memory, time, and the GPU that fits it."""
