"""A study in a notebook: the verdict, the table of the arms, and the figure of the differences as SVG.

The figure is drawn here, without Plotly: its script would add four megabytes to every cell that shows a result.
"""

from __future__ import annotations

from typing import Any

from adamas.compare.report.arms_table import arms_table
from adamas.compare.report.page import environment
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.statistics import Difference
from adamas.compare.verdict.wording import MINUS, words

_WIDTH, _LABELS, _ROW = 640, 190, 44  # pixels of the figure, of its labels, and of a row


def notebook_html(result: Summary) -> str:
    """Return a piece of HTML that shows a study without scripts."""
    sentences = [result.verdict.evidence, result.verdict.note, result.settings_sentence, *result.warnings]
    return (
        environment()
        .get_template("notebook.html")
        .render(
            advice=result.verdict.advice,
            sentences=[sentence for sentence in sentences if sentence],
            arms=arms_table(result),
            code=result.code,
            figure=_figure(result),
        )
    )


def _figure(result: Summary) -> dict[str, Any] | None:
    """Return the places of every mean, interval and pair in pixels; None where nothing could be compared."""
    if result.difference is None:
        return None
    title = result.record.title
    named = [(f"AdamW {MINUS} Adam with L2", result.difference)]
    named += [(f"{title[arm]} {MINUS} no decay", found) for arm, found in result.over_none.items()]
    margin = result.record.settings.margin
    reach = 1.05 * max(
        1.2 * margin.value, *(abs(end) for _, found in named for end in (found.low, found.high, *found.values))
    )

    def place(value: float) -> float:
        return round(_LABELS + (value / reach + 1) / 2 * (_WIDTH - _LABELS), 1)

    factor, unit = (100, "%") if margin.relative else (1, words(result.record.settings.workload.metric))
    return {
        "width": _WIDTH,
        "height": _ROW * len(named) + 30,
        "zero": place(0.0),
        "band": (place(-margin.value), place(margin.value)),
        "rows": [_row(text, found, _ROW * number + 20, place) for number, (text, found) in enumerate(named)],
        "caption": f"difference in {unit}; the band is the margin of ±{margin}; bars are 95 % intervals",
        "ticks": [(place(part * reach), f"{part * reach * factor:.2g}".replace("-", MINUS)) for part in (-0.9, 0, 0.9)],
    }


def _row(text: str, found: Difference, y: int, place: Any) -> dict[str, Any]:
    """Return one difference: its label, its pairs, its interval and its mean."""
    return {
        "label": text,
        "y": y,
        "pairs": [place(value) for value in found.values],
        "low": place(found.low),
        "high": place(found.high),
        "mean": place(found.mean),
    }
