"""The wording of the page: labels, sentences, and the texts of a heat map's cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adamas.compare.study.run import Config
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import figure
from adamas.decay import timescale_epochs, to_independent
from adamas.page.text import plain

_SIGNS = {"diverged": "✕", "stopped": "\N{EN DASH}"}  # shown in a cell that has no figure


def capitalised(text: str) -> str:
    """Return a sentence that starts with a capital; the name of a module keeps its small letter.

    Example:
        >>> capitalised("one run diverged."), capitalised("torch.optim.SGD's best setting")
        ('One run diverged.', "torch.optim.SGD's best setting")
    """
    is_module = "." in text.split()[0].rstrip(".")
    return text if is_module else text[0].upper() + text[1:]


def wrapped(title: str) -> str:
    """Break the label of an arm in a figure into a line for each of its parts.

    Example:
        >>> wrapped("Adam with L2"), wrapped("torch.optim.SGD(momentum=0.9, nesterov=True)")
        ('Adam<br>with L2', 'torch.optim<br>.SGD<br>(momentum=0.9,<br>nesterov=True)')
    """
    name, bracket, options = plain(title).replace(" with", "<br>with").replace("的 ", "的<br>").partition("(")
    if "." in name:
        name = "<br>.".join(name.rsplit(".", 1))
    return name + (f"<br>({options.replace(', ', ',<br>')}" if bracket else "")


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
        say, value = self.result.say, self.values[config]
        lines = [f"<b>{say(f'word.{self._why_no_figure(config)}')}</b>"]
        if math.isfinite(value):
            lines = [say("report.hover_value", metric=plain(self.result.metric), value=figure(value))]
        lines.append(f"lr {lr:.3g}")
        if weight_decay:
            lines.append(say("report.hover_torch", torch=f"{weight_decay:.3g}"))
            lines.append(say("report.hover_paper", paper=f"{to_independent(weight_decay, lr):.3g}"))
            if pilot and self.result.arms[self.arm].arm.decoupled:
                epochs = timescale_epochs(weight_decay, lr, pilot.steps_per_epoch)
                lines.append(say("report.hover_timescale", epochs=f"{epochs:.3g}", total=pilot.epochs))
        return "<br>".join(lines)

    def rows(self) -> list[dict[str, str]]:
        """Return the cells as rows of text, the best first."""
        winner, say = self.result.record.winners[self.arm], self.result.say
        return [
            {
                "lr": f"{config.lr:.3g}",
                "torch": f"{config.weight_decay:.3g}",
                "paper": f"{to_independent(config.weight_decay, config.lr):.3g}",
                "value": figure(value) if math.isfinite(value) else say(f"word.{self._why_no_figure(config)}"),
                "seeds": str(self.seeds(config)),
                "chosen": say("word.chosen") if config == (winner.lr, winner.weight_decay) else "",
            }
            for config, value in sorted(self.values.items(), key=lambda item: item[1])
        ]

    def _why_no_figure(self, config: Config) -> str:
        """Return "diverged", or "stopped" if all runs of the config without figures were pruned half-way."""
        record = self.result.record
        runs = [record.outcomes[run] for run in record.searched[self.arm] if run.config == config]
        missing = [outcome for outcome in runs if not outcome.ok]
        return "stopped" if missing and all(outcome.pruned for outcome in missing) else "diverged"
