"""The table of arms: a column an arm, a row a quantity."""

from __future__ import annotations

import math
from typing import Any

from adamas.compare.report.phrases import STOPPED
from adamas.compare.report.terminal import decays, percent, show
from adamas.compare.verdict.result import ArmResult, Summary
from adamas.compare.verdict.wording import TIMES, words

NONE = "\N{EN DASH}"  # where an arm has no such figure


def arms_table(result: Summary) -> dict[str, Any]:
    """Titles of the columns, and rows of figures, each with its spread if it has one."""
    arms = list(result.arms.values())
    return {
        "titles": [arm.arm.title for arm in arms],
        "rows": [
            {"title": title, "unit": unit, "figures": [split(figure) for figure in figures]}
            for title, unit, figures in [*chosen(arms), *measured(result, arms), *spent(result, arms)]
        ],
    }


def chosen(arms: list[ArmResult]) -> list[tuple[str, str, list[str]]]:
    """The setting of each arm, and what it means for a weight."""
    rows = [
        ("lr", "", [f"{arm.winner.lr:.3g}" for arm in arms]),
        ("weight_decay", "torch", [decays(arm)[0] for arm in arms]),
        (f"lr {TIMES} weight_decay", "independent", [decays(arm)[1] for arm in arms]),
    ]
    if any(arm.total_decay for arm in arms):
        rows.append(
            ("D", "decay over the run", [NONE if arm.total_decay is None else f"{arm.total_decay:.2g}" for arm in arms])
        )
    if any(arm.timescale for arm in arms):
        rows.append(("τ", "timescale in epochs", [timescale(arm.timescale) for arm in arms]))
    return rows


def timescale(epochs: float | None) -> str:
    """AdamW's timescale; infinite without decay."""
    if epochs is None:
        return NONE
    return f"{epochs:.2g}" if math.isfinite(epochs) and epochs < 100 else f"{epochs:.0f}".replace("inf", "∞")


def measured(result: Summary, arms: list[ArmResult]) -> list[tuple[str, str, list[str]]]:
    """The figures of the finalists."""
    metric = result.record.settings.workload.metric
    rows = [
        ("Validation", words(metric), [show(arm.validation) for arm in arms]),
        ("Test", words(metric), [show(arm.test.get(metric)) for arm in arms]),
    ]
    if any("accuracy" in arm.test for arm in arms):
        rows.append(("Test", "accuracy", [percent(arm.test.get("accuracy")) for arm in arms]))
    return rows


def spent(result: Summary, arms: list[ArmResult]) -> list[tuple[str, str, list[str]]]:
    """What the search spent, and the runs that came to no figure; nothing where nothing was searched."""
    rows = [("Runs", "of the search", [str(arm.trials) for arm in arms])] if any(arm.trials for arm in arms) else []
    if any(arm.without_figures > arm.pruned for arm in arms):
        rows.append(("Diverged", "runs", [str(arm.without_figures - arm.pruned) for arm in arms]))
    if any(arm.pruned for arm in arms):
        rows.append((STOPPED.capitalize(), "runs", [str(arm.pruned) for arm in arms]))
    return rows


def split(figure: str) -> tuple[str, str]:
    """A figure and its spread, which stands below it."""
    value, sign, spread = figure.partition(" ± ")
    if not sign:
        return value, ""
    return value + (" %" if spread.endswith("%") else ""), f"± {spread}"
