"""What JupyterHub's and DockerSpawner's settings do here: a table, a check, their effect."""
