"""What happened, and what it means: the ledger, status, explain."""
