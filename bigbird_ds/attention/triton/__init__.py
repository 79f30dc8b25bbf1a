"""The attention backend of NVIDIA GPUs: Triton kernels over a pattern's lists of blocks."""
