"""The attention backend for NVIDIA GPUs: Triton kernels over lists of block pairs."""
