"""A schedule of weight decay, beside any schedule of the learning rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from adamas.decay import constant_product, cosine_schedule, linear_schedule, scaled_weight_decay
from adamas.torch.groups import Group

ANNEALINGS: dict[Any, Callable[[float, float, int, int], float]] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
}
SHAPES = ("constant", *ANNEALINGS, "inverse_lr")
STATE_KEYS = ("step", "base_weight_decays", "base_lrs", "last_weight_decays")


class WeightDecaySchedule:
    r"""Changes the weight decay of an optimizer's groups from step to step.

    Each group starts from its own `weight_decay` at construction, :math:`\lambda_0`. After t calls of `step` it is

    .. math::
        \text{linear:}\quad \lambda_t &= \lambda_0 + (\mathrm{end} - \lambda_0)\, t/T \\
        \text{cosine:}\quad \lambda_t &= \mathrm{end} + (\lambda_0 - \mathrm{end})\,(1 + \cos(\pi t/T))/2 \\
        \text{inverse\_lr:}\quad \lambda_t &= \lambda_0\, \mathrm{lr}_0/\mathrm{lr}_t \\
        \text{a function:}\quad \lambda_t &= f(t)\,\lambda_0

    with T = `total_steps`; from step T on it is `end`. A group whose weight decay is 0 at construction keeps 0: biases
    and norms stay without decay. The schedule writes `group["weight_decay"]` and nothing else, so it works with
    Adam and AdamW of this package and of torch.optim, and beside the schedulers of torch, timm and transformers.
    Whatever else writes that key is overwritten at the next `step`.

    Args:
        optimizer: an optimizer whose groups have a `weight_decay`, a number.
        shape: "constant" | "linear" | "cosine" (DINO) | "inverse_lr": lr * weight_decay stays the same while the
            learning rate moves | a function of the number of steps taken, which returns the factor, >= 0, by which
            each group's starting value is multiplied, as for torch's LambdaLR.
        end: the weight decay at the end, >= 0, for "linear" and "cosine": the same for all groups that decay.
        total_steps: the number of steps to the end, > 0, for "linear" and "cosine".

    Raises:
        ValueError: an unknown shape, `end` or `total_steps` out of range, missing, or given to a shape that does not
            read it; a group without a `weight_decay`, or with one that is not a finite number >= 0, as a tensor is
            not; "inverse_lr" where a group starts from lr = 0; a function that returns no finite number >= 0.

    Call `step` once after each `optimizer.step()`. With "inverse_lr" make the schedule after the learning-rate
    scheduler and call its `step` after the scheduler's, so that it reads the rate of the next optimizer step. lr_0 is
    the group's "initial_lr" where a scheduler has left one, else its `lr` at construction: the given `weight_decay`
    holds at the base learning rate, also where the learning rate starts with a warm-up. Where lr_t is 0 the last finite
    value stays. With `decay="independent"` a constant `weight_decay` shrinks weights in proportion to lr_t, and
    "inverse_lr" by the same factor at each step.

    A group that is added later starts from the weight decay that it has at the next `step`. Every value follows from
    the step count and the starting values, so a resumed schedule repeats the uninterrupted one bit for bit.

    torch has no such schedule (pytorch issue 22343).

    Example:
        >>> import torch
        >>> from adamas.torch import AdamW
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.04)
        >>> schedule = WeightDecaySchedule(optimizer, "cosine", end=0.4, total_steps=4)
        >>> for _ in range(5):
        ...     print(round(optimizer.param_groups[0]["weight_decay"], 4))
        ...     optimizer.step()
        ...     schedule.step()
        0.04
        0.0927
        0.22
        0.3473
        0.4

        The product of learning rate and weight decay stays the same:

        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.04)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
        >>> schedule = WeightDecaySchedule(optimizer, "inverse_lr")
        >>> for _ in range(3):
        ...     optimizer.step()
        ...     scheduler.step()
        ...     schedule.step()
        ...     print(f"{scheduler.get_last_lr()[0]:.3f} {schedule.get_last_weight_decay()[0]:.3f}")
        0.075 0.053
        0.025 0.160
        0.000 0.160

    Source: the cosine of Caron et al., arXiv 2104.14294, section 3.2.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        shape: str | Callable[[int], float] = "constant",
        *,
        end: float | None = None,
        total_steps: int | None = None,
    ) -> None:
        _check_arguments(shape, end, total_steps)
        self.optimizer = optimizer
        self._shape, self._end, self._total_steps = shape, end, total_steps
        self._step = 0
        self._bases: list[float] = []
        self._base_lrs: list[float] = []
        self._last: list[float] = []
        self._move_to(0)
        if not any(self._bases):
            warnings.warn(
                "no group has a weight_decay > 0, and a group that starts at 0 stays there: this schedule changes "
                "nothing. Give the optimizer the weight_decay to start from",
                stacklevel=2,
            )

    def step(self) -> None:
        """Move the weight decay of all groups on by one step."""
        self._move_to(self._step + 1)

    def get_last_weight_decay(self) -> list[float]:
        """The weight decay of each group as this schedule last set it, for logging; as `get_last_lr` of torch."""
        return list(self._last)

    def state_dict(self) -> dict[str, Any]:
        """The step count and each group's starting and last values: numbers, which `torch.load` takes as weights only.

        The shape, `end` and `total_steps` are not among them: those given at construction stay when this is loaded.
        """
        values = (self._step, list(self._bases), list(self._base_lrs), list(self._last))
        return dict(zip(STATE_KEYS, values, strict=True))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the schedule that was saved stopped, and set the groups' weight decay to its last values.

        It does not matter whether the optimizer's own state is loaded before or after.

        Raises:
            ValueError: `state_dict` lacks a key, is of another number of groups, or holds a value that is no finite
                number >= 0; nothing has changed.
        """
        missing = [key for key in STATE_KEYS if key not in state_dict]
        if missing:
            raise ValueError(f"the schedule's state lacks {', '.join(missing)}: it has {', '.join(state_dict)}")
        step, *lists = (state_dict[key] for key in STATE_KEYS)
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"step={step!r} in the schedule's state must be an integer >= 0")
        groups: list[Group] = self.optimizer.param_groups
        for key, values in zip(STATE_KEYS[1:], lists, strict=True):
            if len(values) != len(groups):
                raise ValueError(
                    f"{key} in the schedule's state has {len(values)} values, the optimizer {len(groups)} groups: add "
                    "the same groups before loading"
                )
            for value in values:
                _number(value, f"{key} in the schedule's state")
        self._step = step
        self._bases, self._base_lrs, self._last = ([float(value) for value in values] for values in lists)
        self._write(self._last)

    def _move_to(self, step: int) -> None:
        """Set every group to its value at `step`; nothing changes if a value is refused."""
        groups: list[Group] = self.optimizer.param_groups
        bases, base_lrs, last = list(self._bases), list(self._base_lrs), list(self._last)
        for index, group in enumerate(groups[len(bases) :], len(bases)):
            bases.append(_weight_decay_of(group, index))
            base_lrs.append(self._base_lr_of(group, index, decays=bases[-1] > 0.0))
            last.append(bases[-1])
        factor = _number(self._shape(step), f"the factor at step {step}") if callable(self._shape) else 1.0
        values = [
            self._value(step, base, base_lr, factor, group, before) if base else 0.0
            for base, base_lr, before, group in zip(bases, base_lrs, last, groups, strict=True)
        ]
        self._step, self._bases, self._base_lrs, self._last = step, bases, base_lrs, values
        self._write(values)

    def _value(self, step: int, base: float, base_lr: float, factor: float, group: Group, before: float) -> float:
        """The weight decay at `step` of a group that started from `base`."""
        if self._shape == "inverse_lr":
            value = constant_product(base, base_lr, float(group["lr"]))
            return value if math.isfinite(value) else before
        if callable(self._shape):
            return scaled_weight_decay(base, factor)
        if self._shape == "constant":
            return base
        return ANNEALINGS[self._shape](base, self._end or 0.0, step, self._total_steps or 1)

    def _base_lr_of(self, group: Group, index: int, decays: bool) -> float:
        """The rate at which a group's starting weight decay holds; it must be above 0 where it is read."""
        lr = float(group.get("initial_lr", group["lr"]))
        if self._shape == "inverse_lr" and decays and not 0.0 < lr < math.inf:
            raise ValueError(
                f"group {index} starts from lr={lr}, which must be > 0 for 'inverse_lr', as lr * weight_decay is kept: "
                "construct the optimizer with its base learning rate"
            )
        return lr

    def _write(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            group["weight_decay"] = value


def _check_arguments(shape: str | Callable[[int], float], end: float | None, total_steps: int | None) -> None:
    """Raise unless the shape exists and has the arguments that it reads, and no others."""
    if not callable(shape) and shape not in SHAPES:
        known = ", ".join(map(repr, SHAPES))
        raise ValueError(f"shape={shape!r} must be one of {known}, or a function of the step that returns a factor")
    if shape not in ANNEALINGS:
        for name, value in (("end", end), ("total_steps", total_steps)):
            if value is not None:
                raise ValueError(f"{name}={value!r} is read by 'linear' and 'cosine', not by {shape!r}: leave it out")
        return
    if end is None:
        raise ValueError(f"end=None must be the weight decay, >= 0, that {shape!r} ends with, such as 0.0")
    _number(end, "end")
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps <= 0:
        raise ValueError(f"total_steps={total_steps!r} must be an integer > 0: how many steps {shape!r} takes")


def _number(value: Any, what: str) -> float:
    """The value as a float, if it is a finite number >= 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) < math.inf:
        raise ValueError(f"{what}={value!r} must be a finite number >= 0")
    return float(value)


def _weight_decay_of(group: Group, index: int) -> float:
    if "weight_decay" not in group:
        raise ValueError(f"group {index} has no weight_decay, only {', '.join(group)}: this optimizer does not decay")
    value = group["weight_decay"]
    if isinstance(value, Tensor):
        raise ValueError(
            f"group {index} has weight_decay={value!r}, a tensor, which must be a number: a schedule would replace it, "
            "and whatever reads the tensor would go on with the old value. Give float(weight_decay)"
        )
    return _number(value, f"group {index} has weight_decay")
