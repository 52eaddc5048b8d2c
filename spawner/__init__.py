"""From a request to a running container."""
