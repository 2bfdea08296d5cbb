"""Makes `house_tree` and `house_rules`, beside this file, importable for the tests here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
