"""BigBirdPegasus: an encoder-decoder with a BigBird encoder, with one class per task."""
