"""The table of all claims, in the order of their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adamas.understand.claims.claim import Claim
from adamas.understand.claims.recipes import (
    alike,
    averages,
    batch,
    cautious,
    correction,
    coupling,
    defaults,
    epochs,
    equilibrium,
    formula,
    frameworks,
    generalisation,
    limits,
    moments,
    momentum,
    scale,
    sparse,
    steady,
    switching,
    timescale,
)

CLAIMS: dict[int, Claim] = {
    each.CLAIM.number: each.CLAIM
    for each in (
        limits, averages, sparse, momentum, correction, defaults, coupling, formula, moments, alike, generalisation,
        switching, frameworks,  # the article's thirteen
        scale, epochs, batch, timescale, cautious, steady, equilibrium,  # seven of papers
    )
}  # fmt: skip


def chosen(only: Sequence[str]) -> list[Claim]:
    """Return the claims that were asked for, in the order of their numbers; without a wish, all of them.

    Args:
        only: Numbers, lists with commas and ranges, as in "9", "3,9" or "1-13".

    Raises:
        ValueError: a part is no number of a claim.

    Example:
        >>> [claim.number for claim in chosen(["9", "2-3"])]
        [2, 3, 9]
    """
    wanted: set[int] = set()
    for part in (part.strip() for text in only for part in text.split(",")):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, flags=re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not (first in CLAIMS and last in CLAIMS and first <= last):
            raise ValueError(
                f"only={part!r} must be a number from 1 to {max(CLAIMS)} or a range of them, as in --only 9, "
                "--only 3,9 or --only 1-13"
            )
        wanted.update(range(first, last + 1))
    return [CLAIMS[number] for number in sorted(wanted or CLAIMS)]
