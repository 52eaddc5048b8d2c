"""The hub's side of kernels: what environments there are, registered for every server."""
