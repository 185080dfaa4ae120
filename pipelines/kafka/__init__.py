"""Kafka as Python reaches it, without Spark: connections, topics, Avro values."""
