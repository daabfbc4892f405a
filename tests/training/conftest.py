"""Lets these tests import `fakes`."""

import sys
from pathlib import Path

if (tests := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, tests)
