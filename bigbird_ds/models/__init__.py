"""The networks: own PyTorch code with the names of ``transformers``, which knows their files."""
