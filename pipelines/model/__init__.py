"""What all packages know: pure values, no I/O."""
