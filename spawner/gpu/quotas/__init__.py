"""What administrators allow: the quotas document, in the store and in words."""
