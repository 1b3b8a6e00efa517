"""The figures of the finalists: the test figures of each seed, and the differences with their intervals."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from adamas.compare.report.text import wrapped
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.study.arms import JUDGED
from adamas.compare.verdict.decision import relation
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.statistics import Difference
from adamas.compare.verdict.wording import MINUS, figure, show
from adamas.language import Texts
from adamas.page import Figure
from adamas.page.text import plain

_LABELLED = 4  # most arms with their means as text; the texts of more arms would overlap
_ROW_HEIGHT = 64  # pixels: enough for a label of four lines


def seed_lines(result: Summary, decided: Difference) -> Figure:
    """Return a figure with a thin line for each seed across the arms, and a diamond for each mean.

    Args:
        result: The study.
        decided: The difference between the two judged arms.
    """
    metric, say = result.record.settings.workload.metric, result.say
    values = {name: arm.test[metric].values for name, arm in result.arms.items() if metric in arm.test}
    titles = [wrapped(result.title[name]) for name in values]
    seeds = [say("report.seed", seed=FIRST_FINAL_SEED + number) for number in range(result.record.pairs)]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": titles,
            "y": list(row),
            "name": seed,
            "line": {"width": 1, "color": "var(--faint)"},
            "marker": {"size": 6, "color": "var(--muted)"},
            "hovertemplate": f"{seed}<br>%{{y:.4g}}<extra></extra>",
        }
        for seed, row in zip(seeds, zip_longest(*values.values()), strict=True)
    ]
    means = [result.arms[name].test[metric].mean for name in values]
    below, right = (48, 0.25) if len(titles) <= 3 else (92, 0.05)  # Plotly slants four labels on a phone
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text" if len(titles) <= _LABELLED else "markers",
            "x": titles,
            "y": means,
            "text": [f" {figure(mean)}" for mean in means],
            "textposition": "middle right",
            "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
            "hovertemplate": f"{say('report.seed_mean')} %{{y:.4g}}<extra></extra>",
        }
    )
    layout = {
        "height": 360,
        "margin": {"l": 70, "r": 12, "t": 12, "b": below},
        "xaxis": {"range": [-0.35, len(titles) - right], "showgrid": False},
        "yaxis": {"title": {"text": plain(say("report.test_axis", metric=result.metric))}},
    }
    pairs = len(decided.values)
    answer = say("answer.seeds", metric=result.metric, won=f"{decided.p_better * pairs:g}", pairs=pairs)
    return Figure("seeds", say("question.seeds"), answer, {"data": traces, "layout": layout})


def compared(result: Summary) -> list[tuple[str, str, Difference]]:
    """Return the titles of the two arms of each difference, and the difference; the last one decides."""
    titles, none = result.title, result.say("report.no_decay")
    rows = [(titles[arm], none, found) for arm, found in result.over_none.items()]
    decided = result.difference
    return rows if decided is None else [*rows, (titles["adamw"], titles["adam_l2"], decided)]


def differences(result: Summary, decided: Difference) -> Figure:
    """Return a figure of the differences of all pairs, with means and 95% intervals, over the band of the margin."""
    say = result.say
    low, mean, high = (show(value, decided.relative, sign=True) for value in (decided.low, decided.mean, decided.high))
    answer = say("answer.differences", mean=mean, low=low, high=high)
    return Figure("differences", say("question.differences"), answer, _intervals(result, compared(result), 360))


def interval(result: Summary, decided: Difference) -> Figure:
    """Return the figure of the verdict: the difference that decided, or those to no decay where these decided."""
    say, verdict, rows = result.say, result.verdict, compared(result)
    band = result.record.settings.margin.band
    if verdict.kind == "no_decay":
        rows = [row for row in rows if row[2] in [result.over_none[arm] for arm in JUDGED]]
        answer = say("answer.no_decay", band=band)
    elif verdict.failed:
        rows, answer = rows[-1:], say("answer.failed", arm=result.title[verdict.failed])
    else:
        rows, answer = rows[-1:], say(f"answer.{relation(decided, result.record.settings.margin)}", band=band)
    question = say("question.interval_none" if verdict.kind == "no_decay" else "question.interval")
    return Figure("interval", question, answer, _intervals(result, rows, 0))


def _intervals(result: Summary, rows: list[tuple[str, str, Difference]], least_height: int) -> dict[str, Any]:
    """Return differences of pairs with their means and intervals as a figure of Plotly, a row for each difference."""
    margin, say = result.record.settings.margin, result.say
    factor, unit = (100, "%") if margin.relative else (1, result.metric)
    band = margin.value * factor
    ends = [end * factor for _, _, found in rows for end in (found.low, found.high, *found.values)]
    reach = 1.08 * max(1.15 * band, *map(abs, ends))
    sides = [plain(each) for each in rows[0][:2]] if len(rows) == 1 else [say("report.first"), say("report.second")]
    labels = [f"{wrapped(first)}<br>{MINUS} {wrapped(second)}" for first, second, _ in rows]
    return {
        "data": [trace for row, (_, _, found) in enumerate(rows) for trace in _row_traces(found, row, factor, say)],
        "layout": {
            "height": max(least_height, 98 + _ROW_HEIGHT * len(rows)),
            "margin": {"l": 112, "r": 12, "t": 40, "b": 48},
            "xaxis": {"title": {"text": plain(say("report.axis_difference", unit=unit))}, "range": [-reach, reach]},
            "yaxis": {
                "tickvals": list(range(len(rows))),
                "ticktext": labels,
                "range": [-0.6, len(rows) - 0.4],
                "showgrid": False,
            },
            "shapes": _margin_band(band),
            "annotations": [
                _side_note(0.0, "left", say("report.first_better", arm=sides[0])),
                _side_note(1.0, "right", say("report.second_better", arm=sides[1])),
            ],
        },
    }


def _margin_band(band: float) -> list[dict[str, Any]]:
    """Return a shaded band for the margin, and a vertical line at 0."""
    full_height = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return [
        {**full_height, "type": "rect", "x0": -band, "x1": band, "fillcolor": "var(--band)", "line": {"width": 0}},
        {**full_height, "type": "line", "x0": 0, "x1": 0, "line": {"color": "var(--muted)", "width": 1.5}},
    ]


def _row_traces(found: Difference, row: int, factor: float, say: Texts) -> list[dict[str, Any]]:
    """Return small open circles for the pairs, and below them the mean with its interval."""
    pairs = [value * factor for value in found.values]
    low, mean, high = (f"{value * factor:.3g}" for value in (found.low, found.mean, found.high))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": pairs,
            "y": [row + 0.16] * len(pairs),
            "marker": {"symbol": "circle-open", "size": 8, "color": "var(--muted)"},
            "customdata": [say("report.seed", seed=FIRST_FINAL_SEED + number) for number in range(len(pairs))],
            "hovertemplate": "%{customdata}<br>%{x:.3g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [found.mean * factor],
            "y": [row - 0.12],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [(found.high - found.mean) * factor],
                "arrayminus": [(found.mean - found.low) * factor],
                "color": "var(--mark)",
                "thickness": 3,
                "width": 7,
            },
            "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
            "hovertemplate": say("report.mean_interval", mean=mean, low=low, high=high) + "<extra></extra>",
        },
    ]


def _side_note(x: float, anchor: str, text: str) -> dict[str, Any]:
    """Return a note above one side of the figure."""
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": 1.0, "xanchor": anchor, "yanchor": "bottom",
        "text": text, "showarrow": False, "font": {"size": 12, "color": "var(--muted)"},
    }  # fmt: skip
