"""The wording of the page: labels, sentences, and the texts of a heat map's cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adamas.compare.study.run import Config
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES, figure, words
from adamas.decay import timescale_epochs, to_independent

STOPPED = "stopped half-way"  # in sentences; the outcome's status is "pruned"
_DIVERGED = "diverged"
_SIGNS = {_DIVERGED: "✕", STOPPED: "\N{EN DASH}"}  # shown in a cell that has no figure


def capitalised(text: str) -> str:
    """Return a sentence that starts with a capital; the name of a module keeps its small letter.

    Example:
        >>> capitalised("one run diverged."), capitalised("torch.optim.SGD's best setting")
        ('One run diverged.', "torch.optim.SGD's best setting")
    """
    is_module = "." in text.split()[0].rstrip(".")
    return text if is_module else text[0].upper() + text[1:]


def wrapped(title: str) -> str:
    """Break the label of an arm into a line for each of its parts.

    Example:
        >>> wrapped("Adam with L2"), wrapped("torch.optim.SGD(momentum=0.9, nesterov=True)")
        ('Adam<br>with L2', 'torch.optim<br>.SGD<br>(momentum=0.9,<br>nesterov=True)')
    """
    name, bracket, options = title.replace(" with", "<br>with").partition("(")
    if "." in name:
        name = "<br>.".join(name.rsplit(".", 1))
    return name + (f"<br>({options.replace(', ', ',<br>')}" if bracket else "")


def short_number(value: float) -> str:
    """Return a number as a short label of an axis.

    Example:
        >>> short_number(0.0003), short_number(3e-06), short_number(2.1)
        ('3e-4', '3e-6', '2.1')
    """
    if 0.01 <= value < 1000:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


@dataclass(frozen=True)
class Cells:
    """The cells of an arm's map, and their texts.

    Attributes:
        result: The study.
        arm: The name of the arm.
        values: The validation figures by config; inf where a config has none.
    """

    result: Summary
    arm: str
    values: dict[Config, float]

    def seeds(self, config: Config) -> int:
        """Return the number of seeds that a config ran on."""
        return len({run.seed for run in self.result.record.searched[self.arm] if run.config == config})

    def text(self, config: Config) -> str:
        """Return a figure that fits into a cell, or the sign that says why there is none."""
        value = self.values[config]
        return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else _SIGNS[self._why_no_figure(config)]

    def hover(self, config: Config) -> str:
        """Return the text that appears when the mouse is over a cell."""
        pilot, lr, weight_decay = self.result.record.pilot, config.lr, config.weight_decay
        metric, value = words(self.result.record.settings.workload.metric), self.values[config]
        found = f"validation {metric} <b>{figure(value)}</b>" if math.isfinite(value) else ""
        lines = [found or f"<b>{self._why_no_figure(config)}</b>", f"lr {lr:.3g}"]
        if weight_decay:
            lines.append(f"weight_decay {weight_decay:.3g} (torch)")
            lines.append(f"lr {TIMES} weight_decay {to_independent(weight_decay, lr):.3g} (paper)")
            if pilot and self.result.arms[self.arm].arm.decoupled:
                epochs = timescale_epochs(weight_decay, lr, pilot.steps_per_epoch)
                lines.append(f"timescale {epochs:.3g} of {pilot.epochs} epochs")
        return "<br>".join(lines)

    def rows(self) -> list[dict[str, str]]:
        """Return the cells as rows of text, the best first."""
        winner = self.result.record.winners[self.arm]
        return [
            {
                "lr": f"{config.lr:.3g}",
                "torch": f"{config.weight_decay:.3g}",
                "paper": f"{to_independent(config.weight_decay, config.lr):.3g}",
                "value": figure(value) if math.isfinite(value) else self._why_no_figure(config),
                "seeds": str(self.seeds(config)),
                "chosen": "chosen" if config == (winner.lr, winner.weight_decay) else "",
            }
            for config, value in sorted(self.values.items(), key=lambda item: item[1])
        ]

    def _why_no_figure(self, config: Config) -> str:
        """Return "diverged", or "stopped half-way" if all runs of the config without figures were pruned."""
        record = self.result.record
        runs = [record.outcomes[run] for run in record.searched[self.arm] if run.config == config]
        missing = [outcome for outcome in runs if not outcome.ok]
        return STOPPED if missing and all(outcome.pruned for outcome in missing) else _DIVERGED
