"""The generator is a folder that is run, not an installed package; here it is found in the checkout."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "protocol"))
