"""BigBirdPegasus: an encoder-decoder with a BigBird encoder, with a class for each task."""
