"""What a run gives to DeepSpeed, and what it takes from it."""
