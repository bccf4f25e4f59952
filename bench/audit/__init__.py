"""What the audit costs whoever writes, and how fast it is sealed, verified and read."""
