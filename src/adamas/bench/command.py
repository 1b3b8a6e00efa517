"""What `adamas bench` does, once its options are read: measure row after row, keep each, say."""

from __future__ import annotations

import json

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adamas.bench.conduct import quietest
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.settings import Settings
from adamas.bench.table import print_rows


def bench(settings: Settings, out: Console, err: Console, as_json: bool = False) -> Result:
    """Measure, print a table or the JSON to `out`; progress goes to `err`. Ctrl-C ends the run, and keeps its rows."""
    result = measure(settings, err)
    if as_json:
        out.file.write(json.dumps(result.to_json(), allow_nan=False, indent=2) + "\n")
    else:
        print_rows(out, result)
    if settings.out is not None:
        err.print(f"written to {settings.out}", soft_wrap=True, highlight=False, markup=False)
    return result


def measure(settings: Settings, err: Console) -> Result:
    """The rows of all pairs; what is finished is in `settings.out` at any moment."""
    pairs = [
        (scenario, peer)
        for scenario in settings.scenarios
        for peer in settings.peers
        if not scenario.peers or peer in scenario.peers
    ]
    rows: list[Row] = []

    def keep(complete: bool) -> Result:
        result = Result.of(rows, settings.effort, complete)
        if settings.out is not None:
            result.write(settings.out)
        return result

    keep(complete=False)  # a folder that cannot be written is known now, not after the first row
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("measuring", total=len(pairs))
        try:
            for scenario, peer in pairs:
                progress.update(task, description=f"{peer}, {scenario.name}, {scenario.work}")
                rows.append(quietest(scenario, peer, settings.effort))
                progress.advance(task)
                keep(complete=False)
        except KeyboardInterrupt:
            return keep(complete=False)
    return keep(complete=True)
