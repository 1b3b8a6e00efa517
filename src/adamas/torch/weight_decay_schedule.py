"""A schedule of weight decay, to use with any schedule of the learning rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from adamas.decay import constant_product, cosine_schedule, linear_schedule, scaled_weight_decay
from adamas.scalars import number
from adamas.torch.groups import Group

ANNEALINGS: dict[Any, Callable[[float, float, int, int], float]] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
}
SHAPES = ("constant", *ANNEALINGS, "inverse_lr")
BASES, BASE_LRS, LAST = LISTS = ("base_weight_decays", "base_lrs", "last_weight_decays")  # a value for each group


class WeightDecaySchedule:
    """Changes the weight decay of an optimizer's groups from step to step.

    Each group starts from its own `weight_decay` at construction. After t calls of `step` the weight decay is

    ```
    "linear"      start + (end - start) * t / T
    "cosine"      end + (start - end) * (1 + cos(pi * t / T)) / 2
    "inverse_lr"  start * lr_0 / lr_t
    a function    f(t) * start
    ```

    with T = `total_steps`; from step T on it is `end`. A group that starts at 0, as biases and norms may, stays at 0.
    The schedule writes `group["weight_decay"]` and nothing else. It works with Adam and AdamW of Adamas and of
    torch.optim, and with the schedulers of torch, timm and transformers. `step` overwrites other values of that key.

    Args:
        optimizer: an optimizer with a number as `weight_decay` in each group.
        shape: "constant" | "linear" | "cosine" (DINO) | "inverse_lr", which keeps lr * weight_decay constant while the
            learning rate changes | a function of the number of steps taken. It returns the factor, >= 0, of each
            group's starting value, as for torch's LambdaLR.
        end: the weight decay at the end, >= 0, for "linear" and "cosine": the same for all groups that decay.
        total_steps: the number of steps to the end, > 0, for "linear" and "cosine".

    Raises:
        ValueError: the shape is unknown; `end` or `total_steps` is out of range, missing, or given to a shape that does
            not read it; a group's `weight_decay` is missing, a tensor, or no finite number >= 0; a group starts from
            lr = 0 with "inverse_lr"; a function returns no finite number >= 0; a group was removed.

    Call `step` once after each `optimizer.step()`. With "inverse_lr", make the schedule after the learning-rate
    scheduler and call its `step` after the scheduler's, so that it reads the rate of the next optimizer step. lr_0 is
    the group's "initial_lr", which schedulers write, or else its `lr` at construction. So the given `weight_decay`
    belongs to the base learning rate, also where a warm-up starts lower. Where lr_t is 0, the last finite value stays.
    With `decay="independent"`, a constant `weight_decay` shrinks weights in proportion to lr_t, and "inverse_lr" by the
    same factor at each step.

    A group that is added later starts from its weight decay at the next `step`. Every value follows from the step count
    and the starting values, so that a resumed schedule repeats the uninterrupted one bit for bit.

    torch has no schedule of weight decay (pytorch issue 22343).

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
        self._state: dict[str, Any] = {"step": 0, **{key: [] for key in LISTS}}
        self._move_to(0)
        if not any(self._state[BASES]):
            warnings.warn(
                "no group has a weight_decay > 0, and a group that starts at 0 stays there: this schedule changes "
                "nothing. Give the optimizer the weight_decay to start from",
                stacklevel=2,
            )

    def step(self) -> None:
        """Move the weight decay of all groups on by one step."""
        self._move_to(self._state["step"] + 1)

    def get_last_weight_decay(self) -> list[float]:
        """The weight decay that the schedule last wrote to each group, for logging, as torch's `get_last_lr`."""
        return list(self._state[LAST])

    def state_dict(self) -> dict[str, Any]:
        """The step count, and each group's starting and last values, as plain numbers.

        `torch.load` reads them with `weights_only=True`. The shape, `end` and `total_steps` are not included: when the
        state is loaded, those given at construction stay.
        """
        return deepcopy(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the saved schedule stopped, and set the groups' weight decay to its last values.

        The optimizer's own state may be loaded before or after.

        Raises:
            ValueError: `state_dict` lacks a key, is of another number of groups, or holds a value that is no finite
                number >= 0; nothing has changed.
        """
        missing = [key for key in self._state if key not in state_dict]
        if missing:
            raise ValueError(f"the schedule's state lacks {', '.join(missing)}: it has {', '.join(state_dict)}")
        step, groups = state_dict["step"], len(self.optimizer.param_groups)
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"step={step!r} in the schedule's state must be an integer >= 0")
        state: dict[str, Any] = {"step": step}
        for key in LISTS:
            if len(state_dict[key]) != groups:
                raise ValueError(
                    f"{key} in the schedule's state has {len(state_dict[key])} values, the optimizer {groups} groups: "
                    "add the same groups before loading"
                )
            state[key] = [_checked(value, f"{key} in the schedule's state") for value in state_dict[key]]
        self._write(state)

    def _move_to(self, step: int) -> None:
        """Set every group to its value at `step`; nothing changes if a value is refused."""
        groups: list[Group] = self.optimizer.param_groups
        state: dict[str, Any] = {**deepcopy(self._state), "step": step}
        bases, base_lrs, last = (state[key] for key in LISTS)
        if len(groups) < len(bases):
            raise ValueError(
                f"the optimizer has {len(groups)} parameter groups, and the schedule was made for {len(bases)}: a "
                "schedule cannot follow the removal of a group. Make a new WeightDecaySchedule"
            )
        for index, group in enumerate(groups[len(bases) :], len(bases)):
            base, lr = _weight_decay_of(group, index), float(group.get("initial_lr", group["lr"]))
            if self._shape == "inverse_lr" and base > 0.0 and not 0.0 < lr < math.inf:
                raise ValueError(
                    f"group {index} starts from lr={lr}, which must be > 0 for 'inverse_lr', as lr * weight_decay is "
                    "kept: construct the optimizer with its base learning rate"
                )
            bases.append(base)
            base_lrs.append(lr)
            last.append(base)
        factor = _checked(self._shape(step), f"the factor at step {step}") if callable(self._shape) else 1.0
        state[LAST] = [
            self._value(step, base, base_lr, factor, group, before) if base else 0.0
            for base, base_lr, before, group in zip(bases, base_lrs, last, groups, strict=True)
        ]
        self._write(state)

    def _value(self, step: int, base: float, base_lr: float, factor: float, group: Group, before: float) -> float:
        """The weight decay at `step` of a group that started from `base`."""
        if self._shape == "inverse_lr":
            value = constant_product(base, base_lr, float(group["lr"]))
            return value if math.isfinite(value) else before
        if self._shape in ANNEALINGS:
            return ANNEALINGS[self._shape](base, self._end or 0.0, step, self._total_steps or 1)
        return scaled_weight_decay(base, factor)

    def _write(self, state: dict[str, Any]) -> None:
        """Keep a new state, and write its last values to the groups."""
        self._state = state
        for group, value in zip(self.optimizer.param_groups, state[LAST], strict=True):
            group["weight_decay"] = value


def _check_arguments(shape: str | Callable[[int], float], end: float | None, total_steps: int | None) -> None:
    """Raise unless the shape exists and has exactly the arguments that it reads."""
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
    _checked(end, "end")
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps <= 0:
        raise ValueError(f"total_steps={total_steps!r} must be an integer > 0: how many steps {shape!r} takes")


def _checked(value: Any, what: str) -> float:
    """The value as a float, if it is a finite number >= 0."""
    if not 0.0 <= number(value) < math.inf:
        raise ValueError(f"{what}={value!r} must be a finite number >= 0")
    return float(value)


def _weight_decay_of(group: Group, index: int) -> float:
    """The weight decay of a group, if it is a finite number >= 0."""
    if "weight_decay" not in group:
        raise ValueError(f"group {index} has no weight_decay, only {', '.join(group)}: this optimizer does not decay")
    value = group["weight_decay"]
    if isinstance(value, Tensor):
        raise ValueError(
            f"group {index} has weight_decay={value!r}, a tensor, which must be a number: a schedule would replace it, "
            "and programs that read the tensor would keep the old value. Give float(weight_decay)"
        )
    return _checked(value, f"group {index} has weight_decay")
