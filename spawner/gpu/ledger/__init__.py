"""Who holds which GPU, written down: each move of a lease is one transaction on the store."""
