"""Show how far a study is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adamas.compare.runner.snapshot import Best, Snapshot
from adamas.compare.study.run import Stage
from adamas.compare.verdict.wording import words

LINE_SECONDS = 10.0  # between two plain lines
STAGES: dict[Stage, tuple[str, str]] = {  # in a word, and in words
    "pilot": ("pilot", "pilot: Adam without decay finds where to look"),
    "search": ("grid", "grid: each arm over its own range"),
    "extend": ("edge", "edge: beyond the grid, where an arm's best lies on its edge"),
    "refine": ("closer", "closer: two closer looks around the best cells"),
    "confirm": ("seeds", "seeds: more of them for the best few cells"),
    "sweep": ("variants", "variants of the job: where does the best decay go?"),
    "final": ("final", "final: the winner on fresh paired seeds"),
}


class Progress:
    """A context in which `update` shows a snapshot. It writes to `console` alone, which should be standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        shows = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self._live = Live(console=console, auto_refresh=False, transient=True) if shows else None
        self._last_line = -math.inf
        self._last_stage = ""

    def __enter__(self) -> Callable[[Snapshot], None]:
        """Start."""
        if self._live:
            self._live.__enter__()
        return self.update

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the live table away."""
        if self._live:
            self._live.__exit__(kind, error, trace)

    def update(self, snapshot: Snapshot) -> None:
        """Show `snapshot`; off a terminal, at most every ten seconds and when all arms have left a stage."""
        if self._live:
            self._live.update(live_table(snapshot), refresh=True)
            return
        now = time.monotonic()
        if snapshot.stage != self._last_stage or now - self._last_line >= LINE_SECONDS:
            self._last_line, self._last_stage = now, snapshot.stage
            self._console.print(line(snapshot), soft_wrap=True, highlight=False, markup=False)


def line(snapshot: Snapshot) -> str:
    """A snapshot on a line: how far each arm is, and its best validation figure."""
    arms = (
        f"{arm} {STAGES[best.stage][0]}" + (f" {best.value:.4g}" if best.run else "")
        for arm, best in snapshot.best.items()
    )
    return f"{snapshot.done}/{snapshot.total} runs, {pace(snapshot)}; {', '.join(arms)}"


def live_table(snapshot: Snapshot) -> Group:
    """A snapshot as a bar, its pace, and the best of each arm so far."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{snapshot.done}/{snapshot.total} runs", style="bold"),
        ProgressBar(total=snapshot.total, completed=snapshot.done, width=40),
        Text(pace(snapshot)),
    )
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for title in (
        "arm",
        "stage",
        "runs",
        f"best validation {words(snapshot.metric)}",
        "lr",
        "weight decay",
        "lr x weight decay",
        "no figure",
    ):
        table.add_column(title, justify="left" if title in ("arm", "stage") else "right")
    for arm, best in snapshot.best.items():
        name, stage = snapshot.titles[arm], STAGES[best.stage][0]
        table.add_row(name, stage, str(best.done), *config_columns(best), str(best.without_figures or ""))
    at_work = {best.stage for best in snapshot.best.values()}
    return Group(head, table, *(Text(text, style="dim") for stage, (_, text) in STAGES.items() if stage in at_work))


def config_columns(best: Best) -> tuple[str, str, str, str]:
    """Value, lr and weight decay of a best cell, in both conventions."""
    if best.run is None:
        return "", "", "", ""
    run = best.run
    return f"{best.value:.4g}", f"{run.lr:.3g}", f"{run.weight_decay:.3g}", f"{run.weight_decay_paper:.3g}"


def pace(snapshot: Snapshot) -> str:
    """Rate and time left."""
    if snapshot.seconds_left is None:
        return "finished" if snapshot.done == snapshot.total else "workers are starting"
    seconds = round(snapshot.seconds_left)
    left = f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
    return f"{snapshot.rate * 60:.0f} a minute, about {left} left"
