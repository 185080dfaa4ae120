"""The door: parse, validate, stamp lateness, land every event in bronze or in quarantine."""
