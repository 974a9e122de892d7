"""Made tables come from the tests of latency, so that these here run alone too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "latency"))
