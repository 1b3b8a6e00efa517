"""How much of the machine other processes took meanwhile: what a median cannot mend.

Where another process keeps a core busy, an implementation whose threads wait for each other after every operation may
take a hundred times as long, in each round: the ratio is then a fact about the neighbour.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

TOLERABLE = 0.05  # share of the machine above which figures are marked


class Watch:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self.start = reading()

    def others(self) -> float | None:
        """Share of the machine's processor time that went to others; None where the system does not tell."""
        end = reading()
        if self.start is None or end is None:
            return None
        busy, own, seconds = (b - a for a, b in zip(self.start, end, strict=True))
        return max(0.0, busy - own) / max(seconds * (os.cpu_count() or 1), 1e-9)


def reading() -> tuple[float, float, float] | None:
    """Seconds that all processors were busy since the start, stolen ones included; this process's; the clock."""
    try:
        counts = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = counts[3] + counts[4]  # idle, and waiting for a device
    own = os.times()
    return (sum(counts) - idle) / os.sysconf("SC_CLK_TCK"), own.user + own.system, time.monotonic()
