"""The audit of bronze from metadata: its columns, the Delta log, and what ingest's checkpoint has read; never the sources."""
