"""Every difference with its interval as text: the figure, readable without it."""

from __future__ import annotations

from adamas.compare.report.phrases import unbroken
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import MINUS, show


def comparisons(result: Summary) -> list[dict[str, str]]:
    """A row a difference: the one that decides first."""
    title = result.record.title
    found = [(f"AdamW {MINUS} Adam with L2", result.difference)]
    found += [(f"{title[arm]} {MINUS} Adam without decay", entry) for arm, entry in result.over_none.items()]
    return [
        {
            "title": text,
            **{end: unbroken(show(getattr(entry, end), entry.relative, sign=True)) for end in ("mean", "low", "high")},
            "p": f"{entry.p_sign_flip:.2g}",
            "better": f"{entry.p_better * len(entry.values):g}",
        }
        for text, entry in found
        if entry is not None
    ]
