"""The curves as a drawing: how far sqrt(v) lags, and what that does to the update."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

from benchmarks.figure import OURS, STYLE, save
from benchmarks.tracking.experiment import Result
from benchmarks.tracking.formats import OURS as OUR_SCHEMES
from benchmarks.tracking.formats import SCHEMES

# Dashes tell lines of one colour apart; every line is named where it ends.
DASHES = {
    "float32": "-", "bfloat16": (0, (5, 1.5)), "packed16": (0, (3, 1, 1, 1)), "packed12": (0, (1, 1)),
    "bfloat16-nearest": "-", "bitsandbytes": (0, (5, 1.5)), "flashoptim": (0, (3, 1, 1, 1)),
    "packed16-nearest": (0, (1, 1)),
}  # fmt: skip
NEAREST, FALL = "#b3472f", "#5f6670"
LABEL = 0.055  # least distance between two names, in heights of a panel


def draw(result: Result, path: Path) -> None:
    """Write the drawing; the same result gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        panel(left, result, "fallen", list(SCHEMES), (0.8, 7))
        left.set_title("sqrt(v) where gradients fall, over the exact one", loc="left", fontweight="bold")
        left.set_yticks([1, 2, 3, 4, 5, 6], ["1", "2", "3", "4", "5", "6"])
        noisy = [name for name in SCHEMES if name != "float32"]
        panel(right, result, "update", noisy, (0.01, 10))
        right.set_title("error of the update, over its size", loc="left", fontweight="bold")
        right.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
        figure.supxlabel("steps. Blue: rounded without bias, or not at all. Red: rounded to nearest.", fontsize=8)
        save(figure, path)


def panel(axes: Any, result: Result, measure: str, schemes: Sequence[str], limits: tuple[float, float]) -> None:
    """Draw one measure over the steps on a logarithmic axis, with the name of each line at its end."""
    from matplotlib.ticker import NullLocator

    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.yaxis.set_minor_locator(NullLocator())
    last = result.steps[-1]
    axes.set_xlim(0, last)
    axes.axvline(result.scenario.steps, color=FALL, linewidth=0.8)
    axes.text(result.scenario.steps, 0.97, " half the gradients fall tenfold", va="top", color=FALL,
              transform=axes.get_xaxis_transform())  # fmt: skip
    ends = {}
    for name in schemes:
        curve = [result.at(name, measure, step) for step in result.steps]
        colour = OURS if name in OUR_SCHEMES else NEAREST
        axes.plot(result.steps, curve, color=colour, linestyle=DASHES[name], linewidth=1.3)
        ends[name] = (log(curve[-1]) - log(limits[0])) / (log(limits[1]) - log(limits[0]))
    for name, (end, place) in spread(ends).items():
        colour = OURS if name in OUR_SCHEMES else NEAREST
        axes.plot([1.005, 1.03, 1.08], [end, place, place], color=colour, linestyle=DASHES[name], linewidth=1,
                  transform=axes.transAxes, clip_on=False)  # fmt: skip
        axes.text(1.09, place, SCHEMES[name].label, va="center", color=colour, transform=axes.transAxes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def spread(ends: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Return places for the names, near the ends of their lines and apart from each other."""
    order = sorted(ends, key=lambda name: ends[name])
    places = [ends[name] for name in order]
    for _ in range(200):
        for low in range(len(places) - 1):
            overlap = LABEL - (places[low + 1] - places[low])
            if overlap > 0:
                places[low] -= overlap / 2
                places[low + 1] += overlap / 2
    return {name: (ends[name], place) for name, place in zip(order, places, strict=True)}
