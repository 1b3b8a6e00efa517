"""The verdict on the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adamas.compare.verdict.result import ArmResult, Figures, Summary
from adamas.compare.verdict.wording import figure, words

TITLE_WIDTH = 20  # of an arm's column, or nearly
LABEL_WIDTH = 15  # of the column before them, at least
SIDE_BY_SIDE = 3  # arms at most: beside more, nobody finds the row


def print_verdict(console: Console, result: Summary) -> None:
    """Print the figures of each arm, the verdict, what to keep in mind, and the code to paste."""
    arms = list(result.arms.values())
    beside = max(1, min(SIDE_BY_SIDE, (console.width - LABEL_WIDTH) // TITLE_WIDTH))
    for first in range(0, len(arms), beside):
        console.print(arms_table(result, arms[first : first + beside], titled=first == 0))
    console.print("weight decay as torch counts it; lr x weight decay as the paper does", style="dim italic")
    console.print()
    console.print(Text(result.verdict.text, style="bold"))
    for sentence in (result.verdict.note, result.settings_sentence, *result.warnings):
        if sentence:
            console.print(Text(sentence))
    for finding in result.findings:
        says = {True: "as expected", False: "NOT as expected", None: "cannot be told"}[finding.holds]
        console.print(Text(f"{says}: {finding.expected} Measured: {finding.measured}"))
    console.print()
    if result.record.settings.workload.groups:
        console.print(Text("parameter_groups are those that the job gave:"))
    for code in result.code:  # not wrapped: what is to be pasted stays one line
        console.print(Text(code, style="green"), soft_wrap=True)


def arms_table(result: Summary, arms: Sequence[ArmResult], titled: bool) -> Table:
    """A column an arm: its chosen cell, and its figures on fresh seeds."""
    settings = result.record.settings
    metric = settings.workload.metric
    title = f"{settings.workload.name}: {words(metric)}, lower is better; mean ± sd over {settings.seeds} seeds"
    table = Table(title=Text(title) if titled else None, title_justify="left", title_style="bold")
    table.add_column("", min_width=LABEL_WIDTH)
    for arm in arms:
        name = textwrap.fill(arm.arm.title.replace("(", " ("), TITLE_WIDTH, break_long_words=False)
        table.add_column(Text(name), justify="right", no_wrap=True)

    def row(title: str, show_arm: Callable[[ArmResult], str]) -> None:
        table.add_row(title, *map(show_arm, arms))

    row("lr", lambda arm: f"{arm.winner.lr:.3g}")
    row("weight decay", lambda arm: decays(arm)[0])
    row("lr x weight decay", lambda arm: decays(arm)[1])
    row("validation", lambda arm: show(arm.validation))
    row("test", lambda arm: show(arm.test.get(metric)))
    if any("accuracy" in arm.test for arm in result.arms.values()):
        row("test accuracy", lambda arm: percent(arm.test.get("accuracy")))
    row("runs, without a figure", lambda arm: f"{arm.trials}, {arm.without_figures}")
    return table


def decays(arm: ArmResult) -> tuple[str, str]:
    """Weight decay in both conventions."""
    if arm.arm.decay == "none":
        return "none", "none"
    return f"{arm.winner.weight_decay:.3g}", f"{arm.weight_decay_paper:.3g}"


def show(figures: Figures | None) -> str:
    """Mean and standard deviation over seeds."""
    if figures is None or math.isnan(figures.mean):
        return "diverged"
    return f"{figure(figures.mean)} ± {figure(figures.sd, like=figures.mean)}"


def percent(figures: Figures | None) -> str:
    """A fraction over seeds, in per cent."""
    return "diverged" if figures is None else f"{figures.mean * 100:.1f} ± {figures.sd * 100:.1f} %"
