"""Put the figures of results/*.json into the README, docs/benchmarks.md and numerics.md, docs/figures/benchmarks.svg.

python -m benchmarks.render
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from adamas.bench.duration import duration
from adamas.bench.neighbours import TOLERABLE
from adamas.bench.result import Result
from adamas.bench.row import Figures, Row
from adamas.bench.rule import SCALES
from benchmarks import markdown
from benchmarks.figure import draw
from benchmarks.gpu import page as gpu_page
from benchmarks.gpu import result as gpu_result
from benchmarks.markdown import line
from benchmarks.parity_result import Parity
from benchmarks.parity_result import table as parity_table
from benchmarks.scenarios import BEST_TORCH, LEAN_PEERS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
LEAN = RESULTS.with_name("lean.json")
PARITY = RESULTS.with_name("parity.json")
NUMERICS = ROOT / "docs" / "numerics.md"
GPU = RESULTS.with_name("gpu.json")
FIGURE = ROOT / "docs" / "figures" / "benchmarks.svg"
MARKED = re.compile(r"<!-- benchmark -->.*<!-- /benchmark -->", re.DOTALL)


def table(result: Result) -> str:
    """The rows beside the best of torch, losing ones included, for the README."""
    lines = [
        "<!-- benchmark -->",
        line("", "parameters", "ratio to torch fused", "range", "ours", "torch fused", "error, ours / torch fused"),
        "|---|---|---|---|---|---|---|",
    ]
    for row in result.rows:
        if row.peer == BEST_TORCH and row.figures is not None:
            name = row.scenario if row.dtype == "float32" else f"{row.scenario}, {row.dtype}"
            lines.append(line(row.work, name, *compared(row.figures), errors(row.figures)))
    return "\n".join([*lines, "", measured_on(result), "<!-- /benchmark -->"])


def compared(figures: Figures) -> tuple[str, ...]:
    """Ratio, its range, and both times."""
    ratio, lowest, highest = (shown(each) for each in (figures.ratio, figures.lowest, figures.highest))
    ratio = f"**{ratio}**" if (figures.others or 0.0) <= TOLERABLE else f"{ratio}, doubtful"
    return ratio, f"{lowest}-{highest}", duration(figures.ours.seconds), duration(figures.peer.seconds)


def shown(ratio: float) -> str:
    """Two decimals, three where they would say little."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def errors(figures: Figures) -> str:
    return f"{figures.ours.error_ulps:.2g} / {figures.peer.error_ulps:.2g}"


def measured_on(result: Result) -> str:
    """Versions and machine, and whether the machine was quiet."""
    versions, machine = result.versions, result.machine
    isa = (machine["instruction_sets"] or ["no native kernel"])[0]
    said = f"torch {versions['torch']}, {machine['processor']}, {machine['threads']} threads, {isa}."
    others = [row.figures.others or 0.0 for row in result.rows if row.figures is not None and row.disturbed]
    if others:
        said += f" Doubtful: other processes took up to {max(others):.0%} of the machine in {len(others)} rows."
    return said


def page(result: Result, on_gpu: gpu_result.Result | None = None) -> str:
    """All rows, a section a scenario, and those of a GPU."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(result.versions.items()))
    parts = [
        "<!-- Made by benchmarks/render.py of benchmarks/results/cpu.json: change those. -->",
        "# Benchmarks",
        "![Time a parameter of each implementation, a panel a scenario](figures/benchmarks.svg)",
        f"{measured_on(result)} {versions}.",
        "Each row is measured in a process of its own: ours, the peer and a pass over memory take turns, in "
        f"alternating order, {result.rounds} rounds; the ratio is the median of the rounds' ratios. A *phase* is all "
        "that a loop does between backward and the next batch: clip the global norm of the gradients, step, update "
        "the average of the weights, clear the gradients. Below 1 we are faster. Implementations that follow the same "
        "rule are held equal first; no speed is reported for a wrong result.",
        "- *to memory*: our time to that of reading and writing the same bytes without computing.\n"
        f"- *error*: the largest of a parameter after {len(SCALES)} steps against the rule in float64, in units of "
        "the last place of its dtype, at the larger of its size and the way it may have gone; ours and the peer's.\n"
        "- *state*: bytes a parameter beyond the parameter and its gradient, ours and the peer's.",
    ]
    for (name, dtype, work), rows in groupby(result.rows, lambda row: (row.scenario, row.dtype, row.work)):
        parts += [f"## {name}: a {work} in {dtype}", section(list(rows))]
    parts.append("Repeat it with `make bench`, or on your own shapes with `adamas bench`.")
    parts.append(gpu_page.page(on_gpu))
    return "\n\n".join(parts) + "\n"


def on_gpu() -> gpu_result.Result | None:
    """What was measured on a GPU; None if nothing was."""
    return gpu_result.Result.read(GPU) if GPU.exists() else None


def section(rows: list[Row]) -> str:
    """The rows of one scenario; where there is no figure, its reason."""
    lines = [
        line("peer", "ratio", "range", "ours", "peer's", "to memory", "error", "state", "limit"),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = row.figures
        if figures is None:
            lines.append(line(row.peer, (row.reason or "").replace("|", "\\|"), *[""] * 7))
            continue
        state = f"{figures.ours.state_bytes:.3g} / {figures.peer.state_bytes:.3g}"
        memory = f"{figures.memory_ratio:.2f}"
        lines.append(line(row.peer, *compared(figures), memory, errors(figures), state, limits(row)))
    return "\n".join(lines)


def limits(row: Row) -> str:
    """The limits of a row's ratios, and whether they are kept."""
    if row.within is None:
        return ""
    ratio = "" if row.limit is None else f"{row.limit:.3g}"
    memory = "" if row.memory_limit is None else f"memory {row.memory_limit:.3g}"
    return f"{', '.join(filter(None, (ratio, memory)))}: {'within' if row.within else 'over'}"


def filled(readme: str, result: Result) -> str:
    """The README with this result's table."""
    return MARKED.sub(lambda _: table(result), readme)


def lean(result: Result) -> str:
    """The rows with moments or weights in fewer bits, a line a storage, for the page on formats."""
    lines = [
        line("a step of 16 x 1 M", "weights", "bytes", *LEAN_PEERS, "to memory"),
        "|---|---|---|---|---|---|---|",
    ]
    for (name, dtype), group in groupby(result.rows, lambda row: (row.scenario, row.dtype)):
        rows = {row.peer: row for row in group}
        ours = rows[BEST_TORCH].figures
        if ours is not None:
            bytes_, memory = f"{ours.ours.state_bytes:.3g}", f"{ours.memory_ratio:.2f}"
            beside = (beside_limit(rows[peer]) for peer in LEAN_PEERS)
            lines.append(line(name.partition(", ")[2], dtype, bytes_, *beside, memory))
    said = (
        "Ratios of our time to theirs, medians of interleaved rounds; theirs is torch's fused AdamW, and the 8-bit "
        "AdamW of bitsandbytes and torchao, all on weights of that dtype. *to memory*: to moving as many bytes without "
        f"computing. {measured_on(result)}"
    )
    return "\n".join([*lines, "", said])


def beside_limit(row: Row) -> str:
    """A ratio, with the limit it has to keep."""
    if row.figures is None:
        return row.reason or ""
    ratio = f"**{shown(row.figures.ratio)}**" + (
        "" if row.figures.ratio >= 0.1 else f" ({1 / row.figures.ratio:.0f} x)"
    )
    return (
        ratio if row.limit is None else f"{ratio}, limit {shown(row.limit)}: {'within' if row.within else '**over**'}"
    )


def numerics(text: str, rows: Result, parity: Parity) -> str:
    """The page on formats with the tables of speed and of training parity."""
    return markdown.filled(markdown.filled(text, "lean", lean(rows)), "parity", parity_table(parity))


if __name__ == "__main__":
    found = Result.read(RESULTS)
    README.write_text(filled(README.read_text(), found))
    PAGE.write_text(page(found, on_gpu()))
    draw(found, FIGURE)
    NUMERICS.write_text(numerics(NUMERICS.read_text(), Result.read(LEAN), Parity.read(PARITY)))
