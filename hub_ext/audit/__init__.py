"""The service that keeps the audit trail: it signs, sends on, and removes what is old."""
