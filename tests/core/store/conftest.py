"""The store's tests share the loop's workspace."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
