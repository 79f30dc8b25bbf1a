"""An HTML page about runs: what they are, what they measured, and where the time went."""
