"""The command: `python protocol/generate [--check]`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a folder, Python puts the folder itself first; its parent makes the modules one package, and
    # finds this checkout's `dragoman_protocol` rather than an installed one.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from generate.outputs import main

    sys.exit(main(sys.argv[1:]))
