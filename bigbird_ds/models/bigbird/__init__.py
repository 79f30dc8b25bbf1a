"""BigBird: the encoder (and decoder) of Zaheer et al. 2020, with one class per task."""
