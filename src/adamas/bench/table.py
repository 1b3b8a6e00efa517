"""The rows on the terminal."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adamas.bench.duration import duration
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.rule import SCALES

COLUMNS = ("peer", "ratio", "range", "ours", "peer's", "memory", "error", "state", "")
LEGEND = (
    "ratio: our time to the peer's, median of the rounds. memory: our time to that of moving the same bytes. error: "
    "largest of a parameter after {steps} steps, in ULPs from float64, ours and the peer's. state: bytes a parameter, "
    "ours and the peer's."
)


def print_rows(console: Console, result: Result) -> None:
    """Print a table for each scenario, and the reasons of the peers that have no figures."""
    for (name, dtype, work), group in groupby(result.rows, lambda row: (row.scenario, row.dtype, row.work)):
        rows = list(group)
        title = f"{name}: a {work} in {dtype}, {result.machine['threads']} threads, {result.rounds} rounds"
        console.print(Text(title, style="bold"), soft_wrap=True)
        table = Table(box=None, padding=(0, 1, 0, 0))
        for heading in COLUMNS:
            table.add_column(heading, justify="left" if heading in ("peer", "") else "right", no_wrap=True)
        for row in rows:
            if row.figures is not None:
                table.add_row(*map(Text, cells(row)))
        if table.row_count:
            console.print(table)
        for row in rows:
            if row.reason is not None:
                console.print(Text(f"{row.peer}: {row.reason}"), soft_wrap=True)
        busiest = max((row.figures.others or 0.0 for row in rows if row.figures and row.disturbed), default=None)
        if busiest is not None:
            console.print(Text(f"doubtful: other processes took up to {busiest:.0%} of the machine", style="yellow"))
        console.print()
    console.print(Text(LEGEND.format(steps=len(SCALES)), style="dim"))


def cells(row: Row) -> tuple[str, ...]:
    """What a row with figures shows."""
    figures = row.figures
    assert figures is not None
    ours, peer = figures.ours, figures.peer
    verdict = {None: "", True: "within", False: "OVER"}[row.within]
    return (
        row.peer,
        f"{figures.ratio:.3f}",
        f"{figures.lowest:.2f}-{figures.highest:.2f}",
        duration(ours.seconds),
        duration(peer.seconds),
        f"{figures.memory_ratio:.2f}",
        f"{ours.error_ulps:.2g} {peer.error_ulps:.2g}",
        f"{ours.state_bytes:.3g} {peer.state_bytes:.3g}",
        verdict,
    )
