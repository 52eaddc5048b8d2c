"""A runtime on one Docker Engine: what the agent serves."""
