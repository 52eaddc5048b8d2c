"""From a bare machine to a running site. Standard library only: it runs before anything is installed."""
