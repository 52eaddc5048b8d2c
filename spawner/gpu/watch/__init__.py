"""What happens to leases as time goes by: use is watched, people are told, servers are stopped."""
