"""The view of a study in a notebook: the verdict, the table of the arms, and the differences as an SVG figure.

The figure does without Plotly, because its script would add four megabytes to every output of the notebook.
"""

from __future__ import annotations

from typing import Any

from adamas.compare.report.page import TEMPLATES
from adamas.compare.report.tables import arms_table
from adamas.compare.report.text import capitalised
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import MINUS, words
from adamas.language import Texts
from adamas.page import TEXTS
from adamas.page.render import template

_LABELS, _PLOT, _ROW = 190, 450, 44  # in pixels: least width of the labels, width of the intervals, height of a row


def notebook_html(result: Summary) -> str:
    """Return HTML without scripts that shows a study."""
    sentences = [result.verdict.evidence, result.verdict.note]
    return template("notebook.html", Texts("en", TEXTS), TEMPLATES).render(
        advice=result.verdict.advice,
        sentences=[capitalised(sentence) for sentence in sentences if sentence],
        warnings=[capitalised(sentence) for sentence in result.warnings],
        arms=arms_table(result),
        code=result.code,
        figure=_figure(result),
    )  # fmt: skip


def _figure(result: Summary) -> dict[str, Any] | None:
    """Return the coordinates of all means, intervals and pairs in pixels; None if a finalist has no figure."""
    if result.difference is None:
        return None
    title = result.record.title
    named = [(f"AdamW {MINUS} Adam with L2", result.difference)]
    named += [(f"{title[arm]} {MINUS} no decay", found) for arm, found in result.over_none.items()]
    margin = result.record.settings.margin
    reach = 1.05 * max(
        1.2 * margin.value, *(abs(end) for _, found in named for end in (found.low, found.high, *found.values))
    )

    labels = max(_LABELS, 7 * max(len(label) for label, _ in named))

    def place(value: float) -> float:
        return round(labels + (value / reach + 1) / 2 * _PLOT, 1)

    factor, unit = (100, "%") if margin.relative else (1, words(result.record.settings.workload.metric))
    band = f"±{margin}".removesuffix("abs")
    return {
        "width": labels + _PLOT,
        "height": _ROW * len(named) + 30,
        "zero": place(0.0),
        "band": (place(-margin.value), place(margin.value)),
        "rows": [
            {
                "label": label,
                "y": _ROW * number + 20,
                "pairs": [place(value) for value in found.values],
                **{end: place(getattr(found, end)) for end in ("low", "high", "mean")},
            }
            for number, (label, found) in enumerate(named)
        ],
        "caption": f"difference in {unit}; the band is the margin of {band}; bars are 95% intervals",
        "ticks": [(place(part * reach), f"{part * reach * factor:.2g}".replace("-", MINUS)) for part in (-0.9, 0, 0.9)],
    }
