"""Names of places on the page: each once, and in letters that an address may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable


def anchors(names: Iterable[str]) -> dict[str, str]:
    """An anchor for each name, in the order given; two that would be the same are told apart by a number.

    Example:
        >>> anchors(["digits", "my job.py:job", "my-job.py:job"])
        {'digits': 'digits', 'my job.py:job': 'my-job-py-job', 'my-job.py:job': 'my-job-py-job-2'}
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "study"
        number, anchor = 1, plain
        while anchor in found.values():
            number += 1
            anchor = f"{plain}-{number}"
        found[name] = anchor
    return found
