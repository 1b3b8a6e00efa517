"""A foreman whose workers die, whatever he does."""

from __future__ import annotations

import os
import sys

from adamas.compare.runner.foreman import Foreman

if __name__ == "__main__":
    count, replacements = map(int, sys.argv[1:])
    sys.exit(Foreman(lambda: os._exit(1), count, replacements).run())
