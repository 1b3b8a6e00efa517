"""The section of docs/benchmarks.md on GPUs, from results/gpu.json, or what there is to say without one."""

from __future__ import annotations

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
from benchmarks.markdown import line

HEADING = "## On a GPU"
NOTHING = (
    "Nothing was measured on a GPU yet. `make gpu` stands ready: on a machine with an NVIDIA GPU it runs the tests "
    "that need one, and then, within five minutes, times steps and phases beside what else is installed there."
)
HOW = (
    "All rows are measured in one process: ours and the peer take turns, in alternating order, {rounds} rounds; the "
    "ratio is the median of the rounds' ratios. Times are those between two events on the device, with the host ahead; "
    "of 1,000 small tensors they are the host's, who is the slower one there, with the device's own part in brackets. "
    "Before an implementation is timed it is checked on small tensors, on the same device; compilation is not timed. "
    "Gradients are random and stay where they are in memory, as a loop that repeats itself gets them from torch.\n"
    "\n"
    "- *bandwidth*: the bytes that a call has to move, over its time, as a share of the bandwidth of a large copy in "
    "the same run; ours and the peer's.\n"
    "- *error*: as above, on tensors of together less than 1 M elements.\n"
    "- *state*, and the table of memory: bytes a weight."
)


def page(result: Result | None) -> str:
    """The section; without a result it says so."""
    if result is None:
        return f"{HEADING}\n\n{NOTHING}"
    if result.dry:
        raise ValueError("the figures are those of a dry run, which mean nothing: run make gpu on a machine with a GPU")
    parts = [HEADING, f"{measured_on(result)} {summary(result)}", HOW.format(rounds=result.rounds)]
    if not result.complete:
        parts.append(f"The run ended after {result.seconds:.0f} s, before all rows were reached.")
    for heading, rows in sections(result.rows):
        measured = [time_cells(row) for row in rows if row.figures is not None]
        parts += [f"### {heading}", markdown(TIMES, measured)] if measured else []
    peaks = [peak_cells(row) for row in result.peaks if row.figures is not None]
    if peaks:
        parts += [f"### Memory of a step of {result.peaks[0].scenario}", markdown(PEAKS, peaks)]
    without = reasons([*result.rows, *result.peaks])
    if without:
        parts += ["### Not measured", "\n".join(f"- {reason}" for reason in without)]
    return "\n\n".join(parts)


def markdown(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table."""
    return "\n".join([line(*headings), "|" + "---|" * len(headings), *(line(*row) for row in rows)])
