"""``python -m benchmarks``; what there is, is told by ``--help``."""

import sys
from pathlib import Path

# The modules of this folder are scripts, too, and find each other by their folder.
sys.path.insert(0, str(Path(__file__).parent))

from _command import main

main()
