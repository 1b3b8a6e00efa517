"""How often verdicts of a budget are right, as counted on simulated studies whose truth is known.

`benchmarks/verdict_errors.py` writes the counts, beside its own table of all rows.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from adamas.language import Texts


@cache
def _counts() -> dict[str, dict[str, Any]]:
    """Return the counts of each budget that was counted."""
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def reliability(budget: str, say: Texts) -> str:
    """Return the counts of a budget as a sentence; empty for a budget that was not counted."""
    found = _counts().get(budget)
    return say("verdict.reliability", budget=budget, **found) if found else ""
