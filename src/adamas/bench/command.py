"""`adamas bench`: read the options, measure row after row, keep each one, and show them."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.loop import run
from adamas.bench.peers import PEERS, find, missing
from adamas.bench.process import least_disturbed
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import SHAPES, Scenario, Work, model_shapes, parse_shapes
from adamas.bench.table import LEGEND, report

DEFAULT_SHAPES = ("48 tensors, 10 k", "144 tensors, 0.6 M", "144 tensors, 9.5 M")


def choose_scenarios(model: str | None, shapes: str | None, dtype: str, work: Work) -> list[Scenario]:
    """Return scenarios for the user's own model or shapes, or a small built-in set."""
    if model is not None and shapes is not None:
        raise ValueError(f"model={model!r} and shapes={shapes!r} are two answers to one question: give either")
    if model is not None:
        return [Scenario(model, model_shapes(model), dtype, work)]
    if shapes is not None:
        return [Scenario(shapes, parse_shapes(shapes), dtype, work)]
    return [Scenario(name, parse_shapes(SHAPES[name]), dtype, work) for name in DEFAULT_SHAPES]


def choose_peers(text: str) -> list[str]:
    """Return names of peers: a list with commas, "installed" for those that can be imported, or "all"."""
    if text == "all":
        return list(PEERS)
    if text == "installed":
        return [name for name, peer in PEERS.items() if missing(peer) is None]
    return [find(name.strip()).name for name in text.split(",")]


def bench(
    scenarios: list[Scenario],
    peers: list[str],
    effort: Effort,
    consoles: tuple[Console, Console],
    path: Path | None = None,
    as_json: bool = False,
) -> Result:
    """Measure all rows and show them; Ctrl-C ends the run and keeps its rows.

    Args:
        scenarios: what is stepped.
        peers: names of the implementations to compare with.
        effort: how much is measured for each row.
        consoles: where the table or the JSON goes, and where progress goes.
        path: file that is written after each row; None for no file.
        as_json: whether to print JSON instead of a table.
    """
    out, err = consoles
    tasks = [
        (scenario, peer) for scenario in scenarios for peer in peers if not scenario.peers or peer in scenario.peers
    ]
    result = Result.of(Cpu(), effort)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        shown = progress.add_task("measuring", total=len(tasks))

        def measured(scenario: Scenario, peer: str) -> Row:
            progress.update(shown, description=f"{peer}, {scenario.name}, {scenario.work}")
            return least_disturbed(scenario, peer, effort)

        run(tasks, measured, result, path, lambda row: progress.advance(shown))
    if as_json:
        out.file.write(json.dumps(result.to_json(), allow_nan=False, indent=2) + "\n")
    else:
        for text, style in report(result):
            out.print(Text(text, style=style), soft_wrap=text != LEGEND)  # the legend is wrapped between words
    if path is not None:
        err.print(f"written to {path}", soft_wrap=True, highlight=False, markup=False)
    return result
