"""The program with the Engine's socket: serves the runtime's protocol, and nothing else."""
