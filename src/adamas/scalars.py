"""All scalar arithmetic of a step, in float64 on the host: from the user's `Hyper` to a kernel's `StepScalars`.

A kernel never sees a learning rate or a step count. Whatever is the same for all elements of a tensor is folded here,
once a step, into the factors of

    g      <- grad_factor * grad + l2 * param
    m      <- beta1 * m + beta1_complement * g          (or m + beta1_complement * (g - m), where that errs less)
    v      <- beta2 * v + (beta2_complement * g) * g
    param  <- param - (step_size * m / (sqrt(v + eps_root) + eps) + decay * finite(param))
    ema    <- ema + average * (param - ema)             (only with an average of the weights)

With bias corrections c1 = 1 - beta1^t and c2 = 1 - beta2^t, `mhat / (sqrt(vhat) + eps)` equals
`(sqrt(c2)/c1) * m / (sqrt(v) + eps*sqrt(c2))`: the corrections cost the kernel nothing and save one rounding.

`finite` clamps to the largest finite number. An infinite weight then stays infinite, as in torch; inf - inf would be
NaN. With `cautious` the decay term is 0 where m, and so the update, has the opposite sign of param.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, NamedTuple

from adamas.decay import DECAY_MODES, USES_BASE_LR, DecayMode, share_per_step
from adamas.formats.random_bits import Key, step_key


def number(value: Any) -> float:
    """A number as a float; NaN for anything else, so that every range check fails."""
    return math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of a framework, perhaps one that is only traced; arrays of NumPy are not."""
    return hasattr(value, "shape") and type(value).__module__ != "numpy"


def _check(name: str, value: Any, at_least: float, below: float, rule: str) -> None:
    """Raise ValueError unless `at_least <= value < below`. Tensors pass: reading one could wait for a device."""
    if not is_tensor(value) and not at_least <= number(value) < below:
        if isinstance(value, str):
            raise ValueError(f"{name}: {value!r} is a str ({rule}): write a number, in YAML 1.0e-3 (1e-3 is text)")
        raise ValueError(f"{name}: {value} ({rule})")


# What 16 bits take from a beta that they round to 1: the middle of the numbers that become 1.
_LOST = {"bfloat16": 2.0**-10, "float16": 2.0**-13}


def unrounded_beta(beta: Any, dtype: str) -> Any:
    """A beta that was stored in this dtype, where a beta that was rounded to 1 becomes a number below 1 again.

    bfloat16 rounds 0.999 to 1, with which both the bias correction and the second moment would be 0.

    Example:
        >>> unrounded_beta(1.0, "bfloat16"), unrounded_beta(0.9, "bfloat16"), unrounded_beta(0.999, "float32")
        (0.9990234375, 0.9, 0.999)
    """
    return beta - (beta == 1) * _LOST[dtype] if dtype in _LOST else beta


def check_rate(lr: Any) -> None:
    """Raise ValueError unless a learning rate is finite and >= 0. Tensors pass."""
    _check("Invalid learning rate", lr, 0.0, math.inf, "lr must be finite and >= 0")


@dataclass(frozen=True, slots=True)
class Hyper:
    """The hyperparameters of one parameter group, checked at construction.

    Numbers may be 0-d tensors of a framework, for capturable and differentiable steps. Tensors are not read here, and
    `StepScalars` then holds tensors too.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> Hyper(lr=-1.0)
        Traceback (most recent call last):
        ...
        ValueError: Invalid learning rate: -1.0 (lr must be finite and >= 0)
    """

    lr: Any = 1e-3  # the learning rate of this step, finite and >= 0
    beta1: Any = 0.9  # the decay of the first moment, in [0, 1)
    beta2: Any = 0.999  # the decay of the second moment, in [0, 1)
    eps: float = 1e-8  # added to the root, >= 0
    weight_decay: Any = 0.0  # lambda, >= 0
    decay: DecayMode = "l2"  # "l2" adds lambda * theta to the gradient; for the others see `decay.share_per_step`
    base_lr: float = 0.0  # the learning rate that a schedule starts from, > 0; for "independent" and "corrected"
    amsgrad: Literal["off", "raw", "corrected"] = "off"  # the maximum of v (torch, Keras) or of vhat (optax)
    maximize: bool = False  # whether to maximize the objective instead of minimizing it
    eps_mode: Literal["alg1", "hat"] = "alg1"  # eps after the bias correction of v (torch, optax), or before (Keras)
    eps_root: float = 0.0  # added inside the root, to the corrected v (optax), >= 0
    bias_correction: bool = True  # whether to divide the moments by 1 - beta^t
    ema_decay: float | None = None  # the decay of the weights' moving average, in [0, 1); None for no average
    cautious_decay: bool = False  # no decoupled decay where update and weight have opposite signs (arXiv 2510.12402)

    def __post_init__(self) -> None:
        """Check every field. Errors begin with torch's wording, because torch's own tests match it."""
        check_rate(self.lr)
        _check("Invalid epsilon value", self.eps, 0.0, math.inf, "eps must be finite and >= 0")
        _check("Invalid beta parameter at index 0", self.beta1, 0.0, 1.0, "betas must lie in [0, 1)")
        _check("Invalid beta parameter at index 1", self.beta2, 0.0, 1.0, "betas must lie in [0, 1)")
        _check("Invalid weight_decay value", self.weight_decay, 0.0, math.inf, "weight_decay must be finite and >= 0")
        _check("Invalid eps_root value", self.eps_root, 0.0, math.inf, "eps_root must be finite and >= 0")
        if self.ema_decay is not None:
            rule = "ema_decay must lie in [0, 1), or be None for no average of the weights"
            _check("Invalid ema_decay value", self.ema_decay, 0.0, 1.0, rule)
        for name, allowed in (
            ("decay", DECAY_MODES),
            ("amsgrad", ("off", "raw", "corrected")),
            ("eps_mode", ("alg1", "hat")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, allowed))}")
        if self.decay in USES_BASE_LR and not 0.0 < self.base_lr < math.inf:
            raise ValueError(
                f"base learning rate {self.base_lr} must be > 0 for decay={self.decay!r}, which divides by it: "
                "construct with the schedule's peak lr, or use decay='lr'"
            )
        if self.cautious_decay and self.decay == "l2":
            raise ValueError(
                "cautious_decay=True must go with decoupled weight decay, and decay='l2' adds it to the gradient: "
                "use AdamW (decay='lr', 'independent' or 'corrected'), or cautious_decay=False"
            )


class StepScalars(NamedTuple):
    """The factors of one step, the same for every element: float64, or 0-d tensors where `Hyper` or the step are."""

    grad_factor: Any  # multiplies the gradient: -1 to maximize, 1/scale to undo a loss scale, less to clip the norm
    l2: Any  # coupled weight decay: l2 times the parameter is added to the gradient
    beta1: Any  # the decay of the first moment
    beta1_complement: Any  # 1 - beta1
    beta2: Any  # the decay of the second moment
    beta2_complement: Any  # 1 - beta2
    step_size: Any  # lr * sqrt(c2) / c1, or lr / c1 for amsgrad "corrected"
    eps: Any  # added to the root
    eps_root: Any  # added inside the root
    decay: Any  # decoupled weight decay: decay times the parameter is subtracted from the parameter
    max_factor: Any  # multiplies v before the running maximum of amsgrad
    average: Any  # the new parameter's share in its moving average: 1 - ema_decay, 1 at its start, 0 without average
    amsgrad: bool  # whether a running maximum is kept
    moves: bool  # whether parameters may change: False exactly where lr is the number 0
    random: Key | None = None  # the key of the step's random bits; None without random bits
    skip: Any = None  # a 0-d tensor on the device: whether this step changes nothing; None where the host decided
    cautious: bool = False  # whether decoupled decay is left out where update and weight have opposite signs

    @classmethod
    def of(
        cls,
        hyper: Hyper,
        step: Any,
        grad_factor: Any = 1.0,
        average_begins: Any = False,
        seed: int | None = None,
        lr: Any = None,
    ) -> StepScalars:
        """The scalars of one step of a parameter group.

        Args:
            hyper: the group's hyperparameters.
            step: the number of this step, counted from 1: a number or a 0-d float64 tensor.
            grad_factor: the factor of the gradients: see the function `grad_factor`.
            average_begins: whether the moving average starts at this step, as a copy of the new parameter: a bool, or
                a 0-d tensor where only the device knows, of bool in torch and of float64 elsewhere.
            seed: the seed of random rounding; None without random rounding.
            lr: a learning rate that replaces the group's and that `check_rate` passed; None for the group's.

        Example:
            >>> StepScalars.of(Hyper(lr=0.1, beta1=0.5, beta2=0.75, eps=0.0), step=1).step_size
            0.1
        """
        lr = hyper.lr if lr is None else lr
        c1 = 1 - hyper.beta1**step if hyper.bias_correction else 1.0
        c2 = 1 - hyper.beta2**step if hyper.bias_correction else 1.0
        corrected = hyper.amsgrad == "corrected"
        root = c2**0.5
        average = 0.0
        if hyper.ema_decay is not None and is_tensor(average_begins):
            begins = average_begins.double() if hasattr(average_begins, "double") else average_begins
            average = begins * hyper.ema_decay + (1 - hyper.ema_decay)  # exactly 1 where it begins
        elif hyper.ema_decay is not None:
            average = 1.0 if average_begins else 1 - hyper.ema_decay
        return cls(
            grad_factor=-grad_factor if hyper.maximize else grad_factor,
            l2=hyper.weight_decay if hyper.decay == "l2" else 0.0,
            beta1=hyper.beta1,
            beta1_complement=1 - hyper.beta1,
            beta2=hyper.beta2,
            beta2_complement=1 - hyper.beta2,
            step_size=lr / c1 if corrected else lr * root / c1,
            eps=hyper.eps if corrected or hyper.eps_mode == "hat" else hyper.eps * root,
            eps_root=hyper.eps_root if corrected else hyper.eps_root * c2,
            decay=share_per_step(hyper.decay, hyper.weight_decay, lr, hyper.base_lr),
            max_factor=1 / c2 if corrected else 1.0,
            average=average,
            amsgrad=hyper.amsgrad != "off",
            moves=is_tensor(lr) or lr != 0,
            random=None if seed is None else step_key(int(seed), step),
            cautious=hyper.cautious_decay,
        )


def check_max_norm(max_norm: Any) -> None:
    """Raise ValueError unless `max_norm` is None or a positive number."""
    if max_norm is not None and not number(max_norm) > 0:
        raise ValueError(f"max_norm={max_norm!r} must be > 0, or None not to clip; math.inf only measures the norm")


def norm_of(squares: list[float]) -> float:
    """The norm of all gradients as one vector, from the sums of squares of its parts, in any order.

    Example:
        >>> norm_of([9.0, 16.0])
        5.0
    """
    try:
        return math.sqrt(math.fsum(squares))  # fsum rounds once, in any order
    except OverflowError:
        return math.inf


def grad_factor(scale: Any, norm: Any, max_norm: float | None) -> Any:
    """The factor of the gradients that undoes a loss scale and limits their global norm to `max_norm`.

    The norm is limited as in `torch.nn.utils.clip_grad_norm_`: by max_norm / (norm + 1e-6), at most 1, and NaN where
    the norm is NaN. With max_norm = inf nothing is clipped, not even an infinite norm.

    Args:
        scale: the scale of the loss, a number or a 0-d tensor.
        norm: the norm of all gradients with the scale undone, a number or a 0-d tensor; read only with a finite
            `max_norm`.
        max_norm: the limit; None for no limit.

    Example:
        >>> grad_factor(2.0, norm=9.999999, max_norm=5.0)
        0.25
    """
    if max_norm is None or max_norm == math.inf:
        return 1.0 / scale
    clip = max_norm / (norm + 1e-6)
    if is_tensor(clip):
        clip = clip.clip(max=1.0)
    elif clip > 1.0:
        clip = 1.0
    return clip / scale
