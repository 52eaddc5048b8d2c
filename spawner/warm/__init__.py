"""Servers that are started ahead of time, held for the people whose they are, and released."""
