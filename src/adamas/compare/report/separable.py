"""The separability of each arm's search as rows of text."""

from __future__ import annotations

from adamas.compare.report.arms_table import NONE
from adamas.compare.report.heatmaps import Scale
from adamas.compare.search.pilot import SEED
from adamas.compare.search.selection import scores
from adamas.compare.study.run import Run
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.separability import OnAxis, separability
from adamas.compare.verdict.wording import MINUS, TIMES


def separability_rows(result: Summary, scale: Scale) -> list[dict[str, str]]:
    """Two rows, one an axis, for each arm with decay."""
    record = result.record
    rows: list[dict[str, str]] = []
    for name, arm in result.arms.items():
        runs = record.searched[name]
        # The best few ran on more seeds, the others did not: one seed of each is what can be compared.
        alike = [run for run in runs if run.seed == SEED]
        points = scores(alike, record.outcomes, record.settings.workload.metric)
        found = separability(points, scale.worst, arm.validation.sd, rows_of_grid(runs))
        if found is None:
            continue
        near = NONE if found.near_best is None else f"{found.near_best * 100:.0f} %"
        for axis, figures in ((f"lr {TIMES} weight_decay", found.paper), ("weight_decay", found.torch)):
            rows.append({"arm": arm.arm.title, "axis": axis, **written(figures), "near": near})
    return rows


def rows_of_grid(runs: list[Run]) -> list[float]:
    """The learning rates of a grid and of its extensions; the closer look has rates between them."""
    return sorted({run.lr for run in runs if run.stage in ("search", "extend")})


def written(figures: OnAxis) -> dict[str, str]:
    """The figures of an axis with the digits that matter."""
    return {
        "interaction": NONE if figures.interaction is None else f"{figures.interaction * 100:.0f} %",
        "tilt": NONE if figures.tilt is None else f"{figures.tilt:+.2f}".replace("-", MINUS),
        "regret": NONE if figures.regret is None else f"{figures.regret:.2g}",
    }
