"""The only room that knows a Docker Engine."""
