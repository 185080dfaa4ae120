"""Reading and writing Delta tables. Nothing here decides what a row means."""
