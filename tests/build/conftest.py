"""Puts the build package on the path; it is not part of the installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
