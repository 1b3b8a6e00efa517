"""A time in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in a unit that suits it.

    Example:
        >>> duration(8.5e-05)
        '85 us'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
