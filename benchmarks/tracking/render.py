"""Put the curves of results/tracking.json into docs/numerics.md and docs/figures/tracking.svg.

python -m benchmarks.tracking.render
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import markdown
from benchmarks.tracking.experiment import PATH, Result
from benchmarks.tracking.figure import draw
from benchmarks.tracking.formats import OURS, SCHEMES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "numerics.md"
FIGURE = ROOT / "docs" / "figures" / "tracking.svg"
WINDOW = 500  # steps: a single step's error of the update depends on that step's gradients
COLUMNS = ("stored as", "bytes", "rounding", "sqrt(v) / exact where gradients fell", "error of sqrt(v)")
COLUMNS += ("error of the update", "largest")
NOISE_COLUMNS = ("stored as", "variance of v / exact", "1 + 3/8 variance", "measured")


def table(result: Result) -> str:
    """Return a table of what each format costs and loses."""
    rows: list[tuple[str, ...]] = []
    before, after = result.scenario.steps, result.steps[-1]
    for name, scheme in SCHEMES.items():
        behind = digits(at_end(result, name, "fallen", after))
        error, update = (
            f"{digits(at_end(result, name, measure, before))} → {digits(at_end(result, name, measure, after))}"
            for measure in ("nonzero_sqrt_v", "update")
        )
        worst = max(result.at(name, "update", step) for step in result.steps if step > before)
        label = f"**{scheme.label}**" if name in OURS else scheme.label
        rows.append((label, f"{scheme.bytes:.3g}", scheme.rounding, behind, error, update, digits(worst)))
    return markdown.table(COLUMNS, rows)


def noise(result: Result) -> str:
    """Return a table of what noise in v does to the step, for formats without bias."""
    rows: list[tuple[str, ...]] = []
    before, after = result.scenario.steps, result.steps[-1]
    for name in OURS:
        variance = [at_end(result, name, "variance", step) for step in (before, after)]
        sizes = [at_end(result, name, "step_size", step) for step in (before, after)]
        shown = " → ".join(f"{each:.2g}" if each > 1e-6 else "0" for each in variance)
        derived = " → ".join(f"{1 + 3 / 8 * each:.3f}" for each in variance)
        rows.append((SCHEMES[name].label, shown, derived, " → ".join(f"{each:.3f}" for each in sizes)))
    return markdown.table(NOISE_COLUMNS, rows)


def at_end(result: Result, scheme: str, measure: str, step: int) -> float:
    """Return the median over the last steps until this one."""
    return statistics.median(result.at(scheme, measure, each) for each in result.steps if step - WINDOW < each <= step)


def digits(value: float) -> str:
    """Return a number with two digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def filled(page: str, result: Result) -> str:
    """Return the page with this result's tables between their marks."""
    return markdown.filled(markdown.filled(page, "tracking", table(result)), "noise", noise(result))


if __name__ == "__main__":
    found = Result.read(PATH)
    PAGE.write_text(filled(PAGE.read_text(), found))
    draw(found, FIGURE)
