"""The ranks of a run: how they meet, agree, stop together, and notice one that is missing."""
