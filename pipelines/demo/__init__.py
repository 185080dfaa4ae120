"""A believable day of events, and where it is written to. The same seed gives the same bytes."""
