"""The specification of a study: everything that the figures of its runs depend on.

Runs of two studies may be compared only if their specifications are equal.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import adamas
from adamas.compare.study.settings import Settings

_REVISION = 8  # of the protocol; raised when the same options come to mean other runs
# Fields of a workload that no run depends on. The path of a job differs between machines; its revision stands for it.
_LEFT_OUT = ("factory", "summary", "expected", "margin", "findings", "typed")


def specification(settings: Settings) -> dict[str, Any]:
    """Return everything that the figures of a run depend on, as plain data.

    The number of workers, the storage, the margin and the number of final seeds are not among it.
    """
    packages = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    spec = {
        "protocol": _REVISION,
        "workload": {key: value for key, value in settings.workload.to_json().items() if key not in _LEFT_OUT},
        "arms": {name: asdict(arm) for name, arm in settings.arms.items()},
        "budget": asdict(settings.budget),
        "versions": {"adamas": adamas.__version__, "python": platform.python_version(), **packages},
    }
    return json.loads(json.dumps(spec))  # as it comes back from the storage


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return a line `key: old -> new` for every entry that differs between two specifications.

    Example:
        >>> differences({"protocol": 7, "budget": {"name": "quick"}}, {"protocol": 8, "budget": {"name": "quick"}})
        ['protocol: 7 -> 8']
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
