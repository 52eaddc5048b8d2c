"""What the hub gains: login, store, console, command line."""
