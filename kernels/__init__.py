"""From environments on disk to named kernels."""
