"""Put the figures of results/*.json into the READMEs, docs/benchmarks.md, numerics.md and figures/benchmarks.svg.

python -m benchmarks.render

With the figures of several processors, tables have a first column that names the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adamas.bench.clock import TOLERABLE
from adamas.bench.result import Result
from adamas.bench.row import Figures, Row
from adamas.bench.scenario import PEAKS
from adamas.bench.table import PEAK_COLUMNS, about_gpu, peak_cells, sections, summary, time_of, versions
from benchmarks import RESULTS
from benchmarks.chinese import in_chinese
from benchmarks.figure import draw
from benchmarks.markdown import filled, table
from benchmarks.parity_result import Parity
from benchmarks.parity_result import table as parity_table
from benchmarks.scenarios import BEST_TORCH, LEAN_PEERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
README_ZH = ROOT / "README.zh-CN.md"
PAGE = ROOT / "docs" / "benchmarks.md"
NUMERICS = ROOT / "docs" / "numerics.md"
FIGURE = ROOT / "docs" / "figures" / "benchmarks.svg"
GPU = RESULTS / "gpu.json"

TORCH_COLUMNS = ("", "parameters", "ratio to torch fused", "range", "ours", "torch fused", "error, ours / torch fused")
COLUMNS = ("peer", "ratio", "range", "ours", "peer's", "to memory", "error", "state", "limit")
LEAN_COLUMNS = ("a step of 16 x 1 M", "weights", "bytes", *LEAN_PEERS, "to memory")
FRONT_COLUMNS = ("peer", "tensors", "a call", *COLUMNS[1:-1], "first call", "limit")
NO_FRONTS = "Nothing was measured yet: `python -m benchmarks.run --fronts` does that."
NO_GPU = "Nothing was measured on a GPU yet: `make gpu` does that, on a machine with an NVIDIA GPU."


def read_all(kind: str) -> list[Result]:
    """Return the results of all processors, ordered by file name."""
    return [Result.read(path) for path in sorted(RESULTS.glob(f"{kind}-*.json"))]


def by_processor(
    results: list[Result], headings: tuple[str, ...], rows_of: Callable[[Result], list[tuple[str, ...]]]
) -> str:
    """Return one table of the rows of all results; with several, the first column names the processor."""
    several = len(results) > 1
    rows = [((result.machine["processor"], *row) if several else row) for result in results for row in rows_of(result)]
    return table(("processor", *headings) if several else headings, rows)


def readme(text: str, results: list[Result]) -> str:
    """Return the README with the rows beside the best of torch, losing ones included."""
    return filled(text, "benchmark", benchmark(results))


def readme_zh(text: str, results: list[Result]) -> str:
    """Return the Chinese README with the same rows, their words in Chinese."""
    return filled(text, "benchmark", in_chinese(benchmark(results)))


def benchmark(results: list[Result]) -> str:
    """Return the table of the READMEs, and what it was measured on."""
    rows = by_processor(results, TORCH_COLUMNS, beside_torch)
    return "\n\n".join([rows, *map(measured_on, results)])


def beside_torch(result: Result) -> list[tuple[str, ...]]:
    """Return the cells of the rows beside the best of torch."""
    measured = [(row, row.figures) for row in result.rows if row.peer == BEST_TORCH and row.figures is not None]
    return [
        (row.work, row.scenario + ("" if row.dtype == "float32" else f", {row.dtype}"), *compared(both), errors(both))
        for row, both in measured
    ]


def compared(figures: Figures) -> tuple[str, ...]:
    """Return the cells of the ratio, its range, and both times."""
    ratio, lowest, highest = (shown(each) for each in (figures.ratio, figures.lowest, figures.highest))
    ratio = f"**{ratio}**" if (figures.others or 0.0) <= TOLERABLE else f"{ratio}, doubtful"
    return ratio, f"{lowest}-{highest}", time_of(figures.ours), time_of(figures.peer)


def shown(ratio: float) -> str:
    """Return a ratio with two decimals, or with three where two would say little."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def errors(figures: Figures) -> str:
    """Return the cell of both errors."""
    return f"{figures.ours.error_ulps:.2g} / {figures.peer.error_ulps:.2g}"


def measured_on(result: Result) -> str:
    """Return the version of torch and the machine, and whether the machine was quiet."""
    versions, machine = result.versions, result.machine
    isa = (machine["instruction_sets"] or ["no native kernel"])[0]
    said = f"torch {versions['torch']}, {machine['processor']}, {machine['threads']} threads, {isa}."
    others = [row.figures.others or 0.0 for row in result.rows if row.figures is not None and row.disturbed]
    if others:
        said += f" Doubtful: other processes took up to {max(others):.0%} of the machine in {len(others)} rows."
    return said


def page(text: str, results: list[Result], on_gpu: Result | None = None) -> str:
    """Return the page with all rows, a section for each scenario, and those of a GPU."""
    machines = [f"{measured_on(result)} {result.rounds} rounds. {versions(result)}." for result in results]
    parts: list[str] = []
    for heading in dict.fromkeys(row.heading for result in results for row in result.rows):
        rows = by_processor(
            results, COLUMNS, lambda result, at=heading: [row_cells(row) for row in result.rows if row.heading == at]
        )
        parts += [f"## {heading}", rows]
    text = filled(filled(text, "machines", "\n\n".join(machines)), "rows", "\n\n".join(parts))
    return filled(text, "gpu", NO_GPU if on_gpu is None else gpu_section(on_gpu))


def row_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row; a row without figures shows its reason."""
    figures = row.figures
    if figures is None:
        return row.peer_label, (row.reason or "").replace("|", "\\|"), *[""] * 7
    state = f"{figures.ours.state_bytes:.3g} / {figures.peer.state_bytes:.3g}"
    memory = f"{figures.memory_ratio:.2f}"
    return row.peer_label, *compared(figures), memory, errors(figures), state, limits(row)


def limits(row: Row) -> str:
    """Return the cell of the limits of a row's ratios, and whether they are kept."""
    if row.within is None:
        return ""
    ratio = "" if row.limit is None else f"{row.limit:.3g}"
    memory = "" if row.memory_limit is None else f"memory {row.memory_limit:.3g}"
    first = "" if row.first_limit is None else f"first call {row.first_limit:.3g}"
    return f"{', '.join(filter(None, (ratio, memory, first)))}: {'within' if row.within else 'over'}"


def fronts(text: str, results: list[Result]) -> str:
    """Return the page with the rows of the fronts for NumPy, JAX and Keras."""
    machines = [f"{measured_on(result)} {result.rounds} rounds. {versions(result)}." for result in results]
    rows = by_processor(results, FRONT_COLUMNS, lambda result: [front_cells(row) for row in result.rows])
    return filled(text, "fronts", "\n\n".join([rows, *machines]) if results else NO_FRONTS)


def front_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row of a front, with the ratio of the first calls."""
    peer, *others, limit = row_cells(row)
    ratio = row.figures and row.figures.first_ratio
    return peer, row.scenario, row.work, *others, "" if ratio is None else shown(ratio), limit


def gpu_section(result: Result) -> str:
    """Return the rows of a GPU, with those that have no figures."""
    if result.machine.get("dry"):
        raise ValueError("the figures are those of a dry run, which mean nothing: run make gpu on a machine with a GPU")
    parts = [f"{about_gpu(result)} {result.rounds} rounds. {summary(result)}"]
    if not result.complete:
        parts.append(f"The run ended after {result.seconds:.0f} s, before all rows were reached.")
    for heading, rows in sections(result.rows).items():
        if rows[0].work in PEAKS:
            made = table(PEAK_COLUMNS, map(peak_cells, rows))
        else:
            made = table(("format", *COLUMNS), [(row.format_label, *row_cells(row)) for row in rows])
        parts += [f"### {heading}", made]
    return "\n\n".join(parts)


def lean(result: Result) -> list[tuple[str, ...]]:
    """Return the cells of the rows with moments or weights in fewer bits, a line for each storage."""
    lines: list[tuple[str, ...]] = []
    for rows in sections(result.rows).values():
        peers = {row.peer: row for row in rows}
        best = peers[BEST_TORCH]
        if best.figures is not None:
            name, bytes_ = best.scenario.partition(", ")[2], f"{best.figures.ours.state_bytes:.3g}"
            beside = (beside_limit(peers[peer]) for peer in LEAN_PEERS)
            lines.append((name, best.dtype, bytes_, *beside, f"{best.figures.memory_ratio:.2f}"))
    return lines


def beside_limit(row: Row) -> str:
    """Return the cell of a ratio, with the limit that it has to keep."""
    if row.figures is None:
        return row.reason or ""
    times = "" if row.figures.ratio >= 0.1 else f" ({1 / row.figures.ratio:.0f} x)"
    limit = "" if row.limit is None else f", limit {shown(row.limit)}: {'within' if row.within else '**over**'}"
    return f"**{shown(row.figures.ratio)}**{times}{limit}"


def numerics(text: str, results: list[Result], parity: Parity) -> str:
    """Return the page on formats with the tables of speed and of training parity."""
    said = (
        "Ratios of our time to theirs, medians of interleaved rounds; theirs is torch's fused AdamW, and the 8-bit "
        "AdamW of bitsandbytes and torchao, all on weights of that dtype. *to memory*: to moving as many bytes without "
        f"computing. {' '.join(map(measured_on, results))}"
    )
    text = filled(text, "lean", f"{by_processor(results, LEAN_COLUMNS, lean)}\n\n{said}")
    return filled(text, "parity", parity_table(parity))


if __name__ == "__main__":
    found = read_all("cpu")
    README.write_text(readme(README.read_text(), found))
    README_ZH.write_text(readme_zh(README_ZH.read_text(), found))
    filled_page = page(PAGE.read_text(), found, Result.read(GPU) if GPU.exists() else None)
    PAGE.write_text(fronts(filled_page, read_all("fronts")))
    draw(found, FIGURE)
    NUMERICS.write_text(numerics(NUMERICS.read_text(), read_all("lean"), Parity.read(RESULTS / "parity.json")))
