"""Makes the examples of messages and the robot in memory importable under importlib mode."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "kernel"))
sys.path.append(str(Path(__file__).parent))
