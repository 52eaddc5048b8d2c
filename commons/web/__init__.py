"""What hub, console and kernels service share as servers: origins, guard, addresses, tokens."""
