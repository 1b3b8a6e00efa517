"""What a study is: the facts that make its trials comparable. Two studies mix only if all of them agree."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import adamas
from adamas.compare.study.settings import Settings

REVISION = 7  # of the protocol: raised when the same options come to mean other runs
# Of a workload, that no run depends on; a job lies elsewhere on another machine, and its contents are in its revision.
TOLD = ("factory", "summary", "expected", "margin", "findings", "typed")


def specification(settings: Settings) -> dict[str, Any]:
    """Everything a run's numbers depend on, as plain data. Workers, storage and margin are not among it."""
    return plain(
        {
            "protocol": REVISION,
            "workload": {key: value for key, value in settings.workload.to_json().items() if key not in TOLD},
            "arms": {name: asdict(arm) for name, arm in settings.arms.items()},
            "budget": asdict(settings.budget),
            "seeds": settings.seeds,
            "versions": versions(),
        }
    )


def plain(data: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(data))


def versions() -> dict[str, str]:
    """The versions that can change a run's bits."""
    found = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    return {"adamas": adamas.__version__, "python": platform.python_version(), **found}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `where: old -> new` for every entry that differs.

    Example:
        >>> differences({"seeds": 8, "budget": {"name": "quick"}}, {"seeds": 9, "budget": {"name": "quick"}})
        ['seeds: 8 -> 9']
    """
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        where = f"{prefix}{key}"
        before, after = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{where}.")
        elif before != after:
            lines.append(f"{where}: {before} -> {after}")
    return lines
