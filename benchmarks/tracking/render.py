"""Put the curves of results/tracking.json into docs/numerics.md and docs/figures/tracking.svg.

python -m benchmarks.tracking.render
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import markdown
from benchmarks.markdown import line
from benchmarks.tracking.figure import draw
from benchmarks.tracking.result import PATH, Result
from benchmarks.tracking.schemes import OURS, SCHEMES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "numerics.md"
FIGURE = ROOT / "docs" / "figures" / "tracking.svg"
WINDOW = 500  # steps; a single step's error of the update depends on that step's gradients


def table(result: Result) -> str:
    """A row a scheme: what it costs and what it loses."""
    lines = [
        line("stored as", "bytes", "rounding", "sqrt(v) / exact where gradients fell", "error of sqrt(v)",
             "error of the update", "largest"),
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    before, after = result.scenario.steps, result.steps[-1]
    for name, scheme in SCHEMES.items():
        behind = digits(at_end(result, name, "fallen", after))
        error, update = (
            f"{digits(at_end(result, name, measure, before))} → {digits(at_end(result, name, measure, after))}"
            for measure in ("nonzero_sqrt_v", "update")
        )
        worst = max(result.at(name, "update", step) for step in result.steps if step > before)
        label = f"**{scheme.label}**" if name in OURS else scheme.label
        lines.append(line(label, f"{scheme.bytes:.3g}", scheme.rounding, behind, error, update, digits(worst)))
    return "\n".join(lines)


def noise(result: Result) -> str:
    """A row a format without bias: what noise in v does to the step."""
    lines = [line("stored as", "variance of v / exact", "1 + 3/8 variance", "measured"), "|---|---|---|---|"]
    before, after = result.scenario.steps, result.steps[-1]
    for name in OURS:
        variance = [at_end(result, name, "variance", step) for step in (before, after)]
        sizes = [at_end(result, name, "step_size", step) for step in (before, after)]
        lines.append(
            line(
                SCHEMES[name].label,
                " → ".join(f"{each:.2g}" if each > 1e-6 else "0" for each in variance),
                " → ".join(f"{1 + 3 / 8 * each:.3f}" for each in variance),
                " → ".join(f"{each:.3f}" for each in sizes),
            )
        )
    return "\n".join(lines)


def at_end(result: Result, scheme: str, measure: str, step: int) -> float:
    """The median over the last steps until this one."""
    return statistics.median(result.at(scheme, measure, each) for each in result.steps if step - WINDOW < each <= step)


def digits(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def filled(page: str, result: Result) -> str:
    """The page with this result's tables between their marks."""
    return markdown.filled(markdown.filled(page, "tracking", table(result)), "noise", noise(result))


if __name__ == "__main__":
    found = Result.read(PATH)
    PAGE.write_text(filled(PAGE.read_text(), found))
    draw(found, FIGURE)
