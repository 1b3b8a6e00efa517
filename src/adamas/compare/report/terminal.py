"""Print the verdict of a study on the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adamas.compare.verdict.reliability import reliability
from adamas.compare.verdict.result import ArmResult, Figures, Summary
from adamas.compare.verdict.wording import figure
from adamas.language import Texts

_TITLE_WIDTH = 20  # approximate characters of an arm's column
_LABEL_WIDTH = 15  # least characters of the first column
_SIDE_BY_SIDE = 3  # most arms in one table; a wider table is hard to read


def print_verdict(console: Console, result: Summary) -> None:
    """Print the figures of each arm, the verdict, the warnings, and the code to paste."""
    arms = list(result.arms.values())
    step = max(1, min(_SIDE_BY_SIDE, (console.width - _LABEL_WIDTH) // _TITLE_WIDTH))
    for first in range(0, len(arms), step):
        console.print(_table(result, arms[first : first + step], titled=first == 0))
    say = result.say
    console.print(say("terminal.conventions"), style="dim italic")
    console.print()
    console.print(Text(result.verdict.text, style="bold"))
    for sentence in (result.verdict.note, *result.warnings):
        if sentence:
            console.print(Text(sentence))
    counted = reliability(result.record.settings.budget.name, say)
    if counted:
        console.print(Text(counted, style="dim"))
    if result.extend:
        console.print(Text(say("terminal.to_go_on")))
        console.print(Text(result.extend, style="green"), soft_wrap=True)
    for finding in result.findings:
        key = {True: "as_expected", False: "not_as_expected", None: "cannot_be_told"}[finding.holds]
        console.print(Text(say(f"terminal.{key}", expected=finding.expected, measured=finding.measured)))
    console.print()
    if result.record.settings.workload.groups:
        console.print(Text(say("terminal.groups")))
    if result.tuned_under:
        console.print(Text(result.tuned_under))
    for code in result.code:  # not wrapped, so that a line can be pasted
        console.print(Text(code, style="green"), soft_wrap=True)


def _table(result: Summary, arms: Sequence[ArmResult], titled: bool) -> Table:
    """Return a table with a column for each arm: its chosen config, and its figures on fresh seeds."""
    workload, say = result.record.settings.workload, result.say
    title = say("terminal.title", study=workload.name, metric=result.metric, pairs=result.record.pairs)
    table = Table(title=Text(title) if titled else None, title_justify="left", title_style="bold")
    table.add_column("", min_width=_LABEL_WIDTH)
    for arm in arms:
        name = result.title[arm.arm.name].replace("(", " (")
        table.add_column(Text(textwrap.fill(name, _TITLE_WIDTH, break_long_words=False)), justify="right", no_wrap=True)

    def row(title: str, show_arm: Callable[[ArmResult], str]) -> None:
        table.add_row(title, *map(show_arm, arms))

    row("lr", lambda arm: f"{arm.winner.lr:.3g}")
    row(say("terminal.weight_decay"), lambda arm: weight_decays(arm, say)[0])
    row(say("terminal.weight_decay_paper"), lambda arm: weight_decays(arm, say)[1])
    row(say("terminal.validation"), lambda arm: show_figures(arm.validation, say))
    row(say("terminal.test"), lambda arm: show_figures(arm.test.get(workload.metric), say))
    if any("accuracy" in arm.test for arm in result.arms.values()):
        row(say("terminal.accuracy"), lambda arm: percent(arm.test.get("accuracy"), say))
    row(
        say("terminal.search_runs"),
        lambda arm: say("terminal.failed", runs=arm.trials, failed=arm.trials_without_figures),
    )
    return table


def weight_decays(arm: ArmResult, say: Texts) -> tuple[str, str]:
    """Return the chosen weight decay as text, in torch's and in the paper's convention."""
    if arm.arm.decay == "none":
        return say("word.none"), say("word.none")
    return f"{arm.winner.weight_decay:.3g}", f"{arm.weight_decay_paper:.3g}"


def show_figures(figures: Figures | None, say: Texts) -> str:
    """Return mean and standard deviation over seeds as text."""
    if figures is None or math.isnan(figures.mean):
        return say("word.diverged")
    return f"{figure(figures.mean)} ± {figure(figures.sd, like=figures.mean)}"


def percent(figures: Figures | None, say: Texts) -> str:
    """Return mean and standard deviation of a fraction as text in per cent."""
    return say("word.diverged") if figures is None else f"{figures.mean * 100:.1f} ± {figures.sd * 100:.1f}%"
