"""The best validation figure against the runs spent, for each arm."""

from __future__ import annotations

import math
from typing import Any

from adamas.compare.report.lines import chart, line
from adamas.compare.verdict.curves import at_parts, best_so_far
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import figure, words


def found_so_far(result: Summary) -> dict[str, list[float]]:
    """The best so far of each arm, in the order in which its runs were asked for."""
    record = result.record
    metric = record.settings.workload.metric
    return {name: best_so_far(runs, record.outcomes, metric) for name, runs in record.searched.items()}


def best_figure(result: Summary) -> dict[str, Any]:
    """A descending staircase an arm."""
    traces = [
        line(number, result.record.title[name], range(1, len(best) + 1), best, "run")
        for number, (name, best) in enumerate(found_so_far(result).items())
    ]
    for trace in traces:
        trace |= {"mode": "lines", "line": {**trace["line"], "shape": "hv"}}
    return chart(traces, "runs spent", f"best validation {words(result.record.settings.workload.metric)}")


def best_rows(result: Summary) -> list[dict[str, Any]]:
    """The same as text, at a quarter, half and all of the budget."""
    return [
        {
            "arm": result.record.title[name],
            "parts": [figure(value) if math.isfinite(value) else "none yet" for value in at_parts(best)],
        }
        for name, best in found_so_far(result).items()
    ]
