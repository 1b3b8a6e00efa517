"""The rows on the terminal, in plain text: a machine with a GPU may lack all that draws."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.cells import (
    PEAKS,
    TIMES,
    measured_on,
    peak_cells,
    reasons,
    sections,
    summary,
    time_cells,
)
from benchmarks.gpu.result import Result

LEGEND = (
    "ratio: our time to the peer's, median of {rounds} rounds in turns. ours, peer's: a call; of many small tensors by "
    "the host's clock, and on the device alone in brackets. bandwidth: share of the copy bandwidth. error: largest of "
    "a parameter against float64 on small tensors, in ULPs of its dtype. state, memory: bytes a weight."
)


def table(result: Result) -> str:
    """All there is to say of a run."""
    parts = ["A DRY RUN: no figure means anything."] if result.dry else []
    for heading, rows in sections(result.rows):
        measured = [time_cells(row) for row in rows if row.figures is not None]
        if measured:
            parts.append(f"{heading}\n{columns(TIMES, measured)}")
    peaks = [peak_cells(row) for row in result.peaks if row.figures is not None]
    if peaks:
        parts.append(f"memory of a step of {result.peaks[0].scenario}\n{columns(PEAKS, peaks)}")
    parts += ["\n".join(reasons([*result.rows, *result.peaks]))]
    parts += [LEGEND.format(rounds=result.rounds), measured_on(result)]
    ended = "complete" if result.complete else "NOT complete"
    parts.append(f"{ended} after {result.seconds:.0f} s. {summary(result)}")
    return "\n\n".join(part for part in parts if part)


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells below each other, as wide as the widest."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
