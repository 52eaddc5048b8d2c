"""GPUs: what there is, who holds what, and who may have which."""
