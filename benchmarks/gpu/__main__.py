"""Measure on this machine's GPU, and write results/gpu.json.

python -m benchmarks.gpu [--out benchmarks/results/gpu.json] [--seconds 270] [--rounds 7] [--check] [--dry-run]
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("torch") is None:
        sys.exit(f"no torch: {sys.executable} has none; with make gpu, PYTHON=... chooses another interpreter")
    from benchmarks.gpu.command import main

    sys.exit(main(sys.argv[1:]))
