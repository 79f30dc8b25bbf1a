"""The models: plain PyTorch with the parameter names and checkpoint format of ``transformers``."""
