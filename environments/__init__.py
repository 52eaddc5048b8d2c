"""From environment.yml to a locked, checked, versioned image that a server can be started from."""
