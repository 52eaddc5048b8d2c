"""Servers that nobody uses, or that have run for long, are stopped: as the site file says."""
