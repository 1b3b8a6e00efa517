"""Published rules for weight decay: what each says for a run, in both conventions, and where they disagree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adamas.decay import (
    from_independent,
    timescale_epochs,
    to_independent,
    weight_decay_from_timescale,
)


@dataclass(frozen=True)
class Run:
    """The run that a weight decay is wanted for.

    Attributes:
        lr: The learning rate that the schedule starts from, > 0.
        steps_per_epoch: The optimizer steps in an epoch, > 0.
        epochs: The epochs, > 0.
        tokens: The tokens of an epoch, for language models; None where the data are no tokens.
        parameters: The number of parameters of the model; None where it is not given.
    """

    lr: float
    steps_per_epoch: float
    epochs: float
    tokens: float | None = None
    parameters: float | None = None


@dataclass(frozen=True)
class Advice:
    """What a rule says for a run.

    Attributes:
        rule: The name of the rule.
        source: The paper and its section, or the software.
        low: The smallest weight decay in torch's convention; None where the rule says nothing here.
        high: The largest weight decay in torch's convention.
        note: What the rule is meant for, or which option it needs.
        low_paper: The smallest weight decay in the paper's convention, lr times torch's.
        high_paper: The largest weight decay in the paper's convention.
        longest: The timescale in epochs at the smallest weight decay.
        shortest: The timescale in epochs at the largest weight decay.
    """

    rule: str
    source: str
    low: float | None
    high: float | None
    note: str
    low_paper: float | None = None
    high_paper: float | None = None
    longest: float | None = None
    shortest: float | None = None


def timescale(run: Run) -> tuple[float, float]:
    """Return the weight decays whose timescales lie between the whole run and one epoch.

    Example:
        >>> timescale(Run(lr=0.001, steps_per_epoch=100, epochs=10))
        (1.0, 10.0)
    """
    ends = (weight_decay_from_timescale(epochs, run.lr, run.steps_per_epoch) for epochs in (run.epochs, 1.0))
    low, high = sorted(ends)
    return low, high


def power_lines(run: Run) -> tuple[float, float] | str:
    """Return the weight decay whose timescale is 1.084 * (tokens / parameters)**-0.527 of the run, or what is missing.

    Example:
        >>> low, _ = power_lines(Run(lr=0.01, steps_per_epoch=1000, epochs=1, tokens=2e9, parameters=1e8))
        >>> round(low, 4)
        0.4473
    """
    if run.tokens is None or run.parameters is None:
        return "needs --tokens and --parameters: it is a law in tokens for each parameter of a language model"
    share = 1.084 * (run.tokens * run.epochs / run.parameters) ** -0.527
    decay = weight_decay_from_timescale(share * run.epochs, run.lr, run.steps_per_epoch)
    return decay, decay


def normalized(run: Run) -> tuple[float, float]:
    """Return the weight decays for normalized ones of 0.025 to 0.05, which were best across several jobs.

    The paper's lambda is lambda_norm * sqrt(b / (B * T)) for batches of b, B examples and T epochs: lambda_norm over
    the root of the number of steps.

    Example:
        >>> low, high = normalized(Run(lr=0.001, steps_per_epoch=100, epochs=100))
        >>> round(low, 6), round(high, 6)
        (0.25, 0.5)
    """
    steps = run.steps_per_epoch * run.epochs
    low, high = (from_independent(each / math.sqrt(steps), run.lr) for each in (0.025, 0.05))
    return low, high


def data_constrained(run: Run) -> tuple[float, float] | str:
    """Return 30 times the usual 0.1, for language models that see their data many times, or why it does not apply.

    Example:
        >>> data_constrained(Run(lr=0.001, steps_per_epoch=100, epochs=8, tokens=2e8))
        (3.0, 3.0)
    """
    if run.tokens is None or run.epochs <= 1:
        return "is for language models that see their data more than once: give --tokens and --epochs above 1"
    return 3.0, 3.0


def _default(value: float) -> Callable[[Run], tuple[float, float]]:
    return lambda run: (value, value)


RULES: tuple[tuple[str, str, Callable[[Run], tuple[float, float] | str], str], ...] = (
    (
        "EMA timescale", "arXiv 2405.13698, abstract", timescale,
        "weights average their updates over 1 epoch to the whole run",
    ),
    (
        "Power Lines", "arXiv 2505.13738, fit of tau", power_lines,
        "language models with one pass over the data; tau is 1.084 (D/N)^-0.527 of the run",
    ),
    (
        "normalized decay", "arXiv 1711.05101, appendices B.1 and D", normalized,
        "lambda = lambda_norm / sqrt(steps) in the paper's convention, with lambda_norm 0.025 to 0.05",
    ),
    (
        "30 times the usual", "arXiv 2509.14786, abstract", data_constrained,
        "language models that see few data many times: about 30 times 0.1, tuned together with lr and epochs",
    ),
    ("language-model practice", "arXiv 2005.14165, appendix B", _default(0.1), "a constant, whatever the run"),
    ("torch's default", "torch.optim.AdamW", _default(0.01), "a constant, whatever the run"),
    ("Keras' default", "keras.optimizers.AdamW", _default(0.004), "a constant, whatever the run"),
    ("optax's default", "optax.adamw", _default(0.0001), "a constant, whatever the run"),
)  # fmt: skip


def advice(run: Run) -> list[Advice]:
    """Return what every published rule says for a run; a rule that does not apply says why in its note.

    Raises:
        ValueError: a number of the run is not finite and > 0.

    Example:
        >>> [(each.rule, each.low) for each in advice(Run(lr=0.001, steps_per_epoch=100, epochs=10))][:2]
        [('EMA timescale', 1.0), ('Power Lines', None)]
    """
    for name in ("lr", "steps_per_epoch", "epochs", "tokens", "parameters"):
        value = getattr(run, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name.replace('_', '-')}={value} must be a finite number > 0")
    found: list[Advice] = []
    for rule, source, compute, note in RULES:
        ends = compute(run)
        if isinstance(ends, str):
            found.append(Advice(rule, source, None, None, ends))
            continue
        low, high = ends
        paper = (to_independent(decay, run.lr) for decay in ends)
        times = (timescale_epochs(decay, run.lr, run.steps_per_epoch) for decay in ends)
        found.append(Advice(rule, source, low, high, note, *paper, *times))
    return found


def disagreement(found: list[Advice]) -> str:
    """Return one sentence that says how far the rules are apart.

    Example:
        >>> disagreement(advice(Run(lr=0.001, steps_per_epoch=100, epochs=10)))
        "The rules differ by a factor of 1e+05: optax's default says 0.0001, EMA timescale up to 10."
    """
    known = [(each.low, each.high, each.rule) for each in found if each.low is not None and each.high is not None]
    low, _, least = min(known)
    _, high, most = max(known, key=lambda each: each[1])
    return f"The rules differ by a factor of {high / low:.2g}: {least} says {low:.3g}, {most} up to {high:.3g}."
