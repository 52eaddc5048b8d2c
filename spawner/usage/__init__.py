"""What was used: sums by day, and reports of them."""
