"""Settling from the lake: whatever the streaming join could not know."""
