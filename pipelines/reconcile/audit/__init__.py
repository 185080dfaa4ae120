"""The audit of bronze from metadata: its columns, the Delta log, and what ingest's checkpoint has read. Of sources, Kafka alone
is asked, about offsets that have no row."""
