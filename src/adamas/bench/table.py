"""The rows on the terminal, as plain text: a machine with a GPU may lack the packages that draw tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adamas.bench.memory import bytes_moved
from adamas.bench.result import Result
from adamas.bench.row import Row, Side
from adamas.bench.rule import SCALES

COLUMNS = ("peer", "ratio", "range", "ours", "peer's", "memory", "error", "state", "")
PEAK_COLUMNS = ("format", "implementation", "first step", "later", "resident", "limit")
TO_THE_LEFT = ("format", "peer", "implementation", "", "limit")
LEGEND = (
    f"ratio: our time to the peer's, median of the rounds. memory: our time to that of moving the same bytes. error: "
    f"largest of a parameter after {len(SCALES)} steps, in ULPs from float64, ours and the peer's. state: bytes a "
    f"parameter, ours and the peer's."
)


def report(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the blocks of text that a run is shown as, each with its style."""
    for heading, rows in sections(result.rows).items():
        threads = result.machine.get("threads")
        of_threads = "" if threads is None else f"{threads} threads, "
        yield f"{heading}, {of_threads}{result.rounds} rounds", "bold"
        named = any(row.format for row in rows)
        measured = [cells(row, named) for row in rows if row.figures is not None]
        peaks = [peak_cells(row) for row in rows if row.peak is not None]
        if measured or peaks:
            yield columns(PEAK_COLUMNS if peaks else ("format", *COLUMNS) if named else COLUMNS, measured or peaks), ""
        for row in rows:
            if row.reason is not None:
                yield f"{row.format_label + ', ' if named else ''}{row.peer_label}: {row.reason}", ""
        busiest = max((row.figures.others or 0.0 for row in rows if row.figures and row.disturbed), default=None)
        if busiest is not None:
            yield f"doubtful: other processes took up to {busiest:.0%} of the machine", "yellow"
        yield "", ""
    yield LEGEND, "dim"


def sections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each scenario and work by their heading, in the order in which these first appear."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.heading, []).append(row)
    return found


def cells(row: Row, with_format: bool) -> tuple[str, ...]:
    """Return the cells of a row that has figures."""
    figures = row.figures
    assert figures is not None
    ours, peer = figures.ours, figures.peer
    verdict = {None: "", True: "within", False: "OVER"}[row.within]
    return (
        *((row.format_label,) if with_format else ()),
        row.peer_label,
        f"{figures.ratio:.3f}",
        f"{figures.lowest:.2f}-{figures.highest:.2f}",
        time_of(ours),
        time_of(peer),
        f"{figures.memory_ratio:.2f}",
        f"{ours.error_ulps:.2g} {peer.error_ulps:.2g}",
        f"{ours.state_bytes:.3g} {peer.state_bytes:.3g}",
        verdict,
    )


def time_of(side: Side) -> str:
    """Return the time of a call; where the host's clock was read, the time on the device follows in brackets."""
    alone = "" if side.device_seconds is None else f" ({duration(side.device_seconds)})"
    return duration(side.seconds) + alone


def duration(seconds: float) -> str:
    """Return a time in a unit that suits it.

    Example:
        >>> duration(8.5e-05)
        '85 us'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def peak_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row of memory; a row without figures shows its reason."""
    if row.peak is None:
        return row.format_label, row.peer_label, row.reason or "", "", "", ""
    bytes_ = (f"{each:.2f}" for each in (row.peak.first, row.peak.later, row.peak.resident))
    verdict = "" if row.limit is None else f"{row.limit:.3g}: {'within' if row.within else 'over'}"
    return row.format_label, row.peer_label, *bytes_, verdict


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the cells below each other, each column as wide as its widest cell."""
    lines = [headings, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(headings))]
    left = [heading in TO_THE_LEFT for heading in headings]
    return "\n".join(
        " ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )


def summary(result: Result) -> str:
    """Return how many limits are kept, and name those that are not."""
    missed = [name for name, held in result.verdicts if not held]
    said = f"{len(result.verdicts) - len(missed)} of {len(result.verdicts)} measured limits are kept"
    return f"{said}; over: {'; '.join(missed)}." if missed else f"{said}."


def about_gpu(result: Result) -> str:
    """Return what a run on a GPU was made on: the device, its clocks and memory, and the versions."""
    machine = result.machine
    said = [machine["processor"]]
    smi = machine.get("smi")
    if smi:
        clocks = [smi.get(key, "?") for key in ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem")]
        said.append("driver {}, clocks {} of {} MHz, memory {} MHz".format(*clocks))
    measured = [(row, row.figures) for row in result.rows if row.figures is not None]
    if measured:
        row, figures = max(measured, key=lambda each: each[0].parameters)  # small rows are copied inside a cache
        moved = row.parameters * bytes_moved(row.dtype, row.work, figures.ours.state_bytes)
        rate = moved / figures.ours.seconds * figures.memory_ratio
        said.append(f"copies {rate / 1e12:.2f} TB/s, reads and writes counted")
    first = [figures.ours.first_seconds for _, figures in measured if figures.ours.first_seconds is not None]
    if first:
        said.append(f"our first calls, with what is compiled then, take {min(first):.2g} to {max(first):.2g} s")
    return ". ".join([*said, versions(result)]) + "."


def versions(result: Result) -> str:
    """Return all versions of a result, ordered by name."""
    return ", ".join(f"{name} {number}" for name, number in sorted(result.versions.items()))
