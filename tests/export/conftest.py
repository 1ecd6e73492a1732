"""Networks that cannot be exported stand beside their tests; plugins of others beside those of plugins."""

import sys
from pathlib import Path

for folder in ("export", "plugins"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
