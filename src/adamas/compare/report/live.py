"""Show the progress of a running study: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adamas.compare.study.run import Outcome, Run, Stage
from adamas.compare.study.snapshot import Best, Slow, Snapshot
from adamas.compare.verdict.wording import words

_LINE_SECONDS = 10.0  # between two plain lines
_MESSAGES = 5  # different reasons of failed runs that the end of a study names
_STAGES: dict[Stage, tuple[str, str]] = {  # the stage in one word, and its purpose
    "pilot": ("pilot", "pilot: Adam without decay finds the range of good learning rates"),
    "search": ("search", "search: each arm tries a grid of settings of its own"),
    "refine": ("refine", "refine: settings where the surface through the runs may be lowest"),
    "confirm": ("confirm", "confirm: the best few settings run on more seeds"),
    "sweep": ("sweep", "sweep: variants of the job run with different weight decays"),
    "final": ("final", "final: the best setting runs on fresh paired seeds"),
}


class Progress:
    """Shows the snapshots of a study: `with Progress(console) as update` yields a function that shows one snapshot.

    Args:
        console: The console to write to; standard error, so that the output of the command stays clean.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        shows = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self._live = Live(console=console, auto_refresh=False, transient=True) if shows else None
        self._last_line = -math.inf
        self._last_stage = ""
        self._told: Run | None = None  # the slow run that the last plain line named

    def __enter__(self) -> Callable[[Snapshot], None]:
        """Start the live table, and return `update`."""
        if self._live:
            self._live.__enter__()
        return self.update

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the live table from the terminal."""
        if self._live:
            self._live.__exit__(kind, error, trace)

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot; off a terminal, only after ten seconds or when the last arm has left a stage."""
        if self._live:
            self._live.update(live_table(snapshot), refresh=True)
            return
        now = time.monotonic()
        if snapshot.stage != self._last_stage or now - self._last_line >= _LINE_SECONDS:
            self._last_line, self._last_stage = now, snapshot.stage
            self.say(line(snapshot))
        if snapshot.slow and snapshot.slow.run != self._told:
            self._told = snapshot.slow.run
            self.say(slow_sentence(snapshot.slow))

    def say(self, text: str) -> None:
        """Print a line, which the terminal may break but not mark up."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def line(snapshot: Snapshot) -> str:
    """Return a snapshot as one line: the stage of each arm, and its best validation figure."""
    arms = (
        f"{arm} {_STAGES[best.stage][0]}" + (f" {best.value:.4g}" if best.run else "")
        for arm, best in snapshot.best.items()
    )
    failed = f", {snapshot.failed} failed" if snapshot.failed else ""
    return f"{snapshot.done}/{snapshot.total} runs{failed}, {pace(snapshot)}; {', '.join(arms)}"


def slow_sentence(slow: Slow) -> str:
    """Return which run has been going for much longer than others took, and what ends it."""
    run = slow.run
    many = f"{slow.others + 1} runs in one pass have" if slow.others else "one run has"
    setting = f"{run.arm} lr={run.lr:.3g} weight_decay={run.weight_decay:.3g} seed={run.seed}"
    return f"adamas: {many} been going for {_duration(slow.seconds)}: {setting}; --timeout ends such runs"


def failed_lines(outcomes: Mapping[Run, Outcome]) -> list[str]:
    """Return how many runs of a study failed, and why; runs with the same message share a line."""
    failed = {run: outcome.message for run, outcome in outcomes.items() if outcome.status == "failed"}
    if not failed:
        return []
    lines = [f"{len(failed)} of {len(outcomes)} runs failed:"]
    for message, count in Counter(failed.values()).most_common(_MESSAGES):
        first = next(run for run, said in failed.items() if said == message)
        lines.append(f"  {count} x {message or 'a figure was inf or NaN'} (first: {first.key})")
    return lines


def live_table(snapshot: Snapshot) -> Group:
    """Return a snapshot as a progress bar, the time left, and a table with the best setting of each arm so far."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{snapshot.done}/{snapshot.total} runs", style="bold"),
        ProgressBar(total=snapshot.total, completed=snapshot.done, width=40),
        Text(pace(snapshot)),
    )
    table = Table(box=None, padding=(0, 2), header_style="dim")
    figures = ("runs", f"best validation {words(snapshot.metric)}", "lr", "weight decay", "lr x weight decay")
    for title in ("arm", "stage", *figures, "no figure"):
        table.add_column(title, justify="left" if title in ("arm", "stage") else "right")
    for arm, best in snapshot.best.items():
        name, stage = snapshot.titles[arm], _STAGES[best.stage][0]
        table.add_row(name, stage, str(best.done), *_config_columns(best), str(best.without_figures or ""))
    now = {best.stage for best in snapshot.best.values()}
    notes = [f"{snapshot.failed} failed, the latest: {snapshot.failure}"] if snapshot.failed else []
    notes += [slow_sentence(snapshot.slow)] if snapshot.slow else []
    told = [Text(note, style="yellow", overflow="ellipsis", no_wrap=True) for note in notes]
    return Group(head, table, *told, *(Text(text, style="dim") for stage, (_, text) in _STAGES.items() if stage in now))


def _config_columns(best: Best) -> tuple[str, str, str, str]:
    """Return figure, lr and weight decay of the best run as text, the weight decay in both conventions."""
    if best.run is None:
        return "", "", "", ""
    run = best.run
    return f"{best.value:.4g}", f"{run.lr:.3g}", f"{run.weight_decay:.3g}", f"{run.weight_decay_paper:.3g}"


def pace(snapshot: Snapshot) -> str:
    """Return the number of runs in a minute and the time left as text."""
    if snapshot.seconds_left is None:
        return "finished" if snapshot.done == snapshot.total else "workers are starting"
    return f"{snapshot.rate * 60:.0f} a minute, about {_duration(snapshot.seconds_left)} left"


def _duration(seconds: float) -> str:
    """Return a time in minutes and seconds, or in seconds alone."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
