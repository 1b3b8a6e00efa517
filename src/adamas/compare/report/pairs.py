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
from adamas.page.intervals import Interval, intervals
from adamas.page.text import plain

_LABELLED = 4  # most arms with their means as text; the texts of more arms would overlap


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
    title = plain(say("report.axis_difference", unit=unit))
    sides = [plain(each) for each in rows[0][:2]] if len(rows) == 1 else [say("report.first"), say("report.second")]
    notes = (say("report.first_better", arm=sides[0]), say("report.second_better", arm=sides[1]))
    shown = [_interval_row(one, two, found, factor, say) for one, two, found in rows]
    return intervals(shown, margin.value * factor, title, notes, least_height)


def _interval_row(first: str, second: str, found: Difference, factor: float, say: Texts) -> Interval:
    """Return a difference in the unit of the figure, with its texts."""
    mean, low, high = (value * factor for value in (found.mean, found.low, found.high))
    return Interval(
        f"{wrapped(first)}<br>{MINUS} {wrapped(second)}",
        mean,
        low,
        high,
        say("report.mean_interval", mean=f"{mean:.3g}", low=f"{low:.3g}", high=f"{high:.3g}"),
        tuple(value * factor for value in found.values),
        tuple(say("report.seed", seed=FIRST_FINAL_SEED + number) for number in range(len(found.values))),
    )
