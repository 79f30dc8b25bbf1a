"""What a run and ``bigbird-ds doctor`` say in words, on the terminal and in the log."""
