"""Rejoin: join two event streams into Delta tables, lose nothing, and prove it every night."""

__version__ = "0.1.0"
