"""One short file a job: wiring only. Nothing imports from here but the command line, notebooks and tests."""
