"""What a cell of a map says: in the cell, when pointed at, and in the list below the map."""

from __future__ import annotations

import math

from adamas.compare.report.phrases import STOPPED
from adamas.compare.study.run import Config, Run
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES, figure, words
from adamas.decay import timescale_epochs, to_independent

DIVERGED = "diverged"
SIGNS = {DIVERGED: "✕", STOPPED: "\N{EN DASH}"}  # where a cell has no figure


def why_not(result: Summary, arm: str, point: Config) -> str:
    """Why a point has no figure: it counts as stopped half-way only where none of its runs diverged."""
    outcomes = [
        result.record.outcomes[run] for run in result.record.searched[arm] if (run.lr, run.weight_decay) == point
    ]
    lost = [outcome for outcome in outcomes if not outcome.ok]
    return STOPPED if lost and all(outcome.pruned for outcome in lost) else DIVERGED


def short(result: Summary, arm: str, point: Config, value: float) -> str:
    """A figure that fits in a cell, or the sign of why there is none."""
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else SIGNS[why_not(result, arm, point)]


def long(value: float) -> str:
    """A figure with the digits that matter."""
    return figure(value)


def hover(result: Summary, run: Run, value: float) -> str:
    """What a cell says when pointed at."""
    pilot = result.record.pilot
    metric = words(result.record.settings.workload.metric)
    lost = "" if math.isfinite(value) else why_not(result, run.arm, run.config)
    lines = [f"<b>{lost}</b>" if lost else f"validation {metric} <b>{long(value)}</b>", f"lr {run.lr:.3g}"]
    if run.weight_decay:
        lines += [
            f"weight_decay {run.weight_decay:.3g} (torch)",
            f"lr {TIMES} weight_decay {run.weight_decay_paper:.3g} (independent)",
        ]
        if pilot and result.arms[run.arm].arm.decoupled:
            epochs = timescale_epochs(run.weight_decay, run.lr, pilot.steps_per_epoch)
            lines.append(f"timescale {epochs:.3g} of {pilot.epochs} epochs")
    return "<br>".join(lines)


def text_rows(result: Summary, arm: str, points: dict[Config, float]) -> list[dict[str, str]]:
    """The cells of a map as rows of text, the best first."""
    winner = result.record.winners[arm]
    return [
        {
            "lr": f"{lr:.3g}",
            "torch": f"{decay:.3g}",
            "independent": f"{to_independent(decay, lr):.3g}",
            "value": long(value) if math.isfinite(value) else why_not(result, arm, Config(lr, decay)),
            "chosen": "chosen" if (lr, decay) == (winner.lr, winner.weight_decay) else "",
        }
        for (lr, decay), value in sorted(points.items(), key=lambda item: item[1])
    ]


def power(value: float) -> str:
    """A tick label that stays short.

    Example:
        >>> power(0.0003), power(3e-06), power(2.1)
        ('3e-4', '3e-6', '2.1')
    """
    if 0.01 <= value < 1000:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
