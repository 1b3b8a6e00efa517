"""Put the claims of results/claims.json into docs/claims.md.

adamas claims --json --lang en > benchmarks/results/claims.json
python -m benchmarks.claims
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamas.understand.claims.registry import CLAIMS
from benchmarks import RESULTS
from benchmarks.markdown import filled, table

PAGE = Path(__file__).parents[1] / "docs" / "claims.md"
FOUND = RESULTS / "claims.json"
ARTICLE = 13  # the claims up to this number are the article's
VERDICTS = {"holds": "holds", "conditional": "holds under a condition", "does_not_hold": "**does not hold**"}


def page(text: str, claims: Sequence[Mapping[str, Any]]) -> str:
    """Return the page with a table of all claims and a section for each."""
    rows = [
        (
            f"[{each['number']}](#claim-{each['number']})",
            cell(each["article_en"]),
            VERDICTS[each["verdict"]],
            figure(each),
        )
        for each in claims
    ]
    text = filled(text, "verdicts", table(("", "claim", "verdict", "figure"), rows))
    for mark, first, last in (("article", 1, ARTICLE), ("papers", ARTICLE + 1, len(claims))):
        parts = [section(each) for each in claims if first <= each["number"] <= last]
        text = filled(text, mark, "\n\n".join(parts))
    return text


def cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return text.replace("|", "\\|")


def figure(claim: Mapping[str, Any]) -> str:
    """Return the figure of a claim with its interval, if it has one."""
    value, low, high = (f"{claim[key]:.3g}" for key in ("value", "low", "high"))
    shown = value if low == value == high else f"{value} ({low} to {high})"
    return f"{shown}: {CLAIMS[claim['number']].figure_en}"


def section(claim: Mapping[str, Any]) -> str:
    """Return the section of a claim: both languages, the result, and how to run it again."""
    number = claim["number"]
    return "\n".join(
        (
            f'### <span id="claim-{number}">{number}</span>: {VERDICTS[claim["verdict"]].strip("*")}',
            "",
            f"> {claim['article_zh']}",
            ">",
            f"> {claim['article_en']}",
            ">",
            f"> Source: {claim['source']}",
            "",
            claim["text"],
            "",
            f"Measured in {max(1, round(claim['seconds']))} s on one processor. Again: `adamas claims --only {number}`",
        )
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), json.loads(FOUND.read_text())["claims"]), encoding="utf-8")
