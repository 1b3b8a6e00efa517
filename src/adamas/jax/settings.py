"""The hyperparameters of a JAX optimizer, and the factors of a traced step from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from adamas.decay import USES_BASE_LR, DecayMode
from adamas.kernels import xla
from adamas.kernels.xla import x64
from adamas.scalars import Hyper, StepScalars, check_max_norm, grad_factor, unrounded_beta

ScalarOrSchedule = float | Any | Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of an optimizer that its steps need; numbers may be 0-d arrays, traced or not."""

    learning_rate: ScalarOrSchedule
    b1: Any
    b2: Any
    eps: Any
    eps_root: Any = 0.0
    weight_decay: Any
    mask: Any
    decay: DecayMode
    base_lr: Any
    cautious_decay: bool
    amsgrad: str
    maximize: bool = False
    ema_decay: float | None = None
    max_norm: float | None = None
    seed: int = 0  # of the random bits for rounding

    def __post_init__(self) -> None:
        """Check every value before the first step is traced."""
        check_max_norm(self.max_norm)
        if self.decay in USES_BASE_LR and self.base_lr is None and not isinstance(self.learning_rate, Real):
            raise ValueError(
                f"decay={self.decay!r} divides by the base learning rate, which a schedule, or an array that may "
                "change, does not tell: give base_lr, for instance the peak of the schedule"
            )
        with x64():
            self._hyper(1e-3 if callable(self.learning_rate) else self.learning_rate, self.weight_decay)

    def _hyper(self, lr: Any, weight_decay: Any) -> Hyper:
        """The checked hyperparameters of one step, with arrays in float64 where that is enabled."""
        base_lr = 0.0
        if self.decay in USES_BASE_LR:
            base_lr = self.learning_rate if self.base_lr is None else self.base_lr
        return Hyper(
            lr=_value(lr),
            beta1=_value(self.b1, is_beta=True),
            beta2=_value(self.b2, is_beta=True),
            eps=_value(self.eps),
            eps_root=_value(self.eps_root),
            weight_decay=_value(weight_decay),
            decay=self.decay,
            base_lr=_value(base_lr),
            amsgrad=self.amsgrad,  # pyright: ignore[reportArgumentType] - checked by Hyper
            maximize=self.maximize,
            ema_decay=self.ema_decay,
            cautious_decay=self.cautious_decay,
        )

    def scalars(self, count: Any, norm: Any, decays: bool, random: bool = False) -> StepScalars:
        """The factors of the step after `count` steps, as 0-d float64 arrays.

        Args:
            count: the number of steps taken, an int32 array.
            norm: the global norm of the gradients, float64; read only with `max_norm`.
            decays: whether weight decay applies, which a mask decides.
            random: whether the step rounds stochastically.
        """
        lr = self.learning_rate(count) if callable(self.learning_rate) else self.learning_rate
        with x64():
            hyper = self._hyper(lr, self.weight_decay if decays else 0.0)
            factor = grad_factor(1.0, norm, self.max_norm)
        return xla.scalars(hyper, count, factor, self.seed if random else None)

    def absent(self, decays: bool) -> frozenset[str]:
        """The names of the factors that are 0 at every step."""
        return xla.absent(self.decay, self.weight_decay if decays else 0.0, self.eps_root)

    def decaying(self, params: Any) -> list[bool]:
        """Whether weight decay applies to each leaf of the parameters, as the mask says."""
        mask = self.mask(params) if callable(self.mask) else self.mask
        if mask is None:
            return [True] * len(jax.tree.leaves(params))
        return jax.tree.leaves(jax.tree.map(lambda keep, part: jax.tree.map(lambda _: bool(keep), part), mask, params))


def _value(value: Any, is_beta: bool = False) -> Any:
    """A number as it is, an array in float64; betas that 16 bits rounded to 1 are repaired."""
    if not hasattr(value, "dtype"):
        return value
    dtype = str(value.dtype)
    value = value.astype(jnp.float64) if isinstance(value, Tracer) else float(value)
    return unrounded_beta(value, dtype) if is_beta else value
