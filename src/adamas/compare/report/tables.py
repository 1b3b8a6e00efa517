"""The tables of the page: arms, differences, separability, the facts for a repetition, and all runs."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adamas.compare.report.pairs import compared
from adamas.compare.report.terminal import percent, show_figures, weight_decays
from adamas.compare.report.text import capitalised
from adamas.compare.search.grids import SEED
from adamas.compare.search.selection import FIRST_FINAL_SEED, scores
from adamas.compare.study.run import Run
from adamas.compare.verdict.contract import rows_of
from adamas.compare.verdict.result import ArmResult, Summary
from adamas.compare.verdict.separability import OnAxis, separability
from adamas.compare.verdict.wording import MINUS, TIMES, counted, show
from adamas.language import Texts
from adamas.page import Table

_NONE = "\N{EN DASH}"  # shown where an arm has no figure
_Row = tuple[str, str, list[str]]  # a title, a unit, and a figure for each arm


def arms_table(result: Summary) -> dict[str, Any]:
    """Return the titles of the columns, one for each arm, and the rows of figures with their spread."""
    arms, say = list(result.arms.values()), result.say
    return {
        "titles": list(result.title.values()),
        "rows": [
            {"title": title, "unit": unit, "figures": [_split(figure) for figure in figures]}
            for title, unit, figures in [
                *_chosen(arms, say),
                *_measured(result, arms),
                *_spent(arms, say),
            ]
        ],
    }


def _chosen(arms: list[ArmResult], say: Texts) -> list[_Row]:
    """Return the rows of the chosen configs and of the effect of their decay."""
    rows = [
        ("lr", "", [f"{arm.winner.lr:.3g}" for arm in arms]),
        ("weight_decay", say("report.torch"), [weight_decays(arm, say)[0] for arm in arms]),
        (f"lr {TIMES} weight_decay", say("report.paper"), [weight_decays(arm, say)[1] for arm in arms]),
    ]
    if any(arm.total_decay for arm in arms):
        totals = [_NONE if arm.total_decay is None else f"{arm.total_decay:.2g}" for arm in arms]
        rows.append((say("report.total_decay"), say("report.over_the_run"), totals))
    if any(arm.timescale for arm in arms):
        rows.append(("τ", say("report.timescale"), [_timescale(arm.timescale) for arm in arms]))
    return rows


def _timescale(epochs: float | None) -> str:
    """Return AdamW's timescale as text; it is infinite without decay."""
    if epochs is None:
        return _NONE
    return f"{epochs:.2g}" if math.isfinite(epochs) and epochs < 100 else f"{epochs:.0f}".replace("inf", "∞")


def _measured(result: Summary, arms: list[ArmResult]) -> list[_Row]:
    """Return the rows of the finalists' figures."""
    metric, say = result.record.settings.workload.metric, result.say
    rows = [
        (say("report.validation"), result.metric, [show_figures(arm.validation, say) for arm in arms]),
        (say("report.test"), result.metric, [show_figures(arm.test.get(metric), say) for arm in arms]),
    ]
    if any("accuracy" in arm.test for arm in arms):
        shares = [percent(arm.test.get("accuracy"), say) for arm in arms]
        rows.append((say("report.test"), say("report.accuracy"), shares))
    return rows


def _spent(arms: list[ArmResult], say: Texts) -> list[_Row]:
    """Return the rows that count the runs of the search and the runs without figures; rows of zeros are left out."""
    counts = (
        (say("report.runs"), say("report.of_the_search"), [arm.trials for arm in arms]),
        (say("report.diverged"), say("report.unit_runs"), [arm.without_figures - arm.pruned for arm in arms]),
        (say("report.stopped"), say("report.unit_runs"), [arm.pruned for arm in arms]),
    )
    return [(title, unit, list(map(str, numbers))) for title, unit, numbers in counts if any(numbers)]


def _split(figure: str) -> tuple[str, str]:
    """Split a figure from its spread, which the table shows below it."""
    value, sign, spread = figure.partition(" ± ")
    if not sign:
        return value, ""
    return value + ("%" if spread.endswith("%") else ""), f"± {spread}"


def differences_table(result: Summary) -> list[dict[str, str]]:
    """Return a row of text for each difference and its interval; the first one decides."""
    rows = compared(result)
    found = [
        (result.say("report.minus", first=first, second=second), entry)
        for first, second, entry in (*rows[-1:], *rows[:-1])
    ]
    return [
        {
            "title": text,
            **{
                end: capitalised(show(getattr(entry, end), entry.relative, sign=True))
                for end in ("mean", "low", "high")
            },
            "p": f"{entry.p_sign_flip:.2g}",
            "better": f"{entry.p_better * len(entry.values):g}",
        }
        for text, entry in found
    ]


def separability_table(result: Summary, worst: float) -> list[dict[str, str]]:
    """Return two rows for each arm with decay, one for each axis of decay.

    Args:
        result: The study.
        worst: The figure at the end of the colour scale; higher figures count as this one.
    """
    record = result.record
    rows: list[dict[str, str]] = []
    for name, arm in result.arms.items():
        runs = record.searched[name]
        # Only the best few configs ran on more seeds. One seed of each config makes them comparable.
        values = scores([run for run in runs if run.seed == SEED], record.outcomes, record.settings.workload.metric)
        found = separability(values, worst, arm.validation.sd, _grid_rates(runs))
        if found is None:
            continue
        near = _NONE if found.near_best is None else f"{found.near_best * 100:.0f}%"
        for axis, figures in ((f"lr {TIMES} weight_decay", found.paper), ("weight_decay", found.torch)):
            rows.append({"arm": result.title[name], "axis": axis, **_axis_figures(figures), "near": near})
    return rows


def _grid_rates(runs: list[Run]) -> list[float]:
    """Return the learning rates of a grid, without the rates of later runs."""
    return sorted({run.lr for run in runs if run.stage == "search"})


def _axis_figures(figures: OnAxis) -> dict[str, str]:
    """Return the figures of an axis as text."""
    return {
        "interaction": _NONE if figures.interaction is None else f"{figures.interaction * 100:.0f}%",
        "tilt": _NONE if figures.tilt is None else f"{figures.tilt:+.2f}".replace("-", MINUS),
        "regret": _NONE if figures.regret is None else f"{figures.regret:.2g}",
    }


def repetition(result: Summary) -> list[tuple[str, str]]:
    """Return the names and values of everything that a repetition of the study needs."""
    settings, spec = result.record.settings, result.record.specification
    workload = settings.workload
    versions = {**spec["versions"], **{name: version(name) for name in ("optuna", "scipy", "plotly")}}
    say = result.say
    seeds = {"first": FIRST_FINAL_SEED, "last": FIRST_FINAL_SEED + result.record.pairs - 1}
    workers = say("report.workers_none")
    if settings.workers:
        workers = say("report.workers_are", processes=counted("process", settings.workers, say))
    slowest = max(arm.seconds for arm in result.arms.values())
    where = {"name": workload.name, "revision": workload.revision, "device": workload.device}
    return [
        (say("report.versions"), ", ".join(f"{name} {number}" for name, number in versions.items())),
        (say("report.seeds"), say("report.seeds_finals" if workload.fixed else "report.seeds_all", **seeds)),
        (say("report.workload"), say("report.workload_is", **where)),
        (say("report.workers"), workers),
        (say("report.machine"), f"{_processor()}, {platform.system()} {platform.machine()}"),
        (say("report.time"), say("report.time_is", seconds=f"{slowest:.2g}")),
    ]


def _processor() -> str:
    """Return the name of the CPU, or "CPU" where the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def runs_table(result: Summary) -> Table:
    """Return all runs as a table, pilot and finals included; a figure that was not measured is empty."""
    rows = rows_of(result.record)
    caption = result.say("report.runs_caption", runs=len(rows))
    return Table("runs", tuple(rows[0]), tuple(tuple(row.values()) for row in rows), caption)
