"""The streaming join of on-time rows: hot window only, bounded state, watermarks that follow the door."""
