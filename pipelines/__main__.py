"""`python -m pipelines` and `spark-submit pipelines/__main__.py`: the same commands as `rejoin`."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a file, Python puts pipelines/ itself first on the path, where our module names would shadow others.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipelines.cli import main

main()
