"""All scalar arithmetic of a step, in float64 on the host: `Hyper`, as the user set it, -> `StepScalars`, for a kernel.

A kernel never sees a learning rate or a step count. Everything that is the same for all elements of a tensor is
folded here, once a step, into the factors of

    g      <- grad_factor * grad + l2 * param
    m      <- beta1 * m + beta1_complement * g          (or m + beta1_complement * (g - m), whichever errs less)
    v      <- beta2 * v + (beta2_complement * g) * g
    param  <- param - (step_size * m / (sqrt(v + eps_root) + eps) + decay * finite(param))
    ema    <- ema + average * (param - ema)                    (where an average of the weights is kept)

With bias corrections c1 = 1 - beta1^t and c2 = 1 - beta2^t, `mhat / (sqrt(vhat) + eps)` equals
`(sqrt(c2)/c1) * m / (sqrt(v) + eps*sqrt(c2))`, so the corrections cost the kernel nothing and one rounding less.

`finite` clamps to the largest finite number, so that an infinite weight stays infinite, as in torch: inf - inf is NaN.
With `cautious` the decay term is 0 where m and param have opposite signs: m has the sign of the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, NamedTuple

from adamas.decay import DECAY_MODES, USES_BASE_LR, DecayMode, share_per_step
from adamas.formats.random_bits import Key, step_key


def _number(value: Any) -> float:
    """A number as a float; NaN for anything else, so that every range check fails."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    return float(value)


def _check(name: str, value: Any, at_least: float, below: float, rule: str) -> None:
    """Raise ValueError unless `at_least <= value < below`. A tensor is not read: that could wait for a device."""
    if hasattr(value, "detach"):
        return
    if not at_least <= _number(value) < below:
        if isinstance(value, str):
            raise ValueError(f"{name}: {value!r} is a str ({rule}): write it without quotes, or convert it by float()")
        raise ValueError(f"{name}: {value} ({rule})")


def check_rate(lr: Any) -> None:
    """Raise ValueError unless a learning rate is in its range; a tensor is not read."""
    _check("Invalid learning rate", lr, 0.0, math.inf, "lr must be finite and >= 0")


@dataclass(frozen=True, slots=True)
class Hyper:
    """The hyperparameters of one parameter group, validated when made.

    Numbers may be 0-d tensors of a framework (capturable and differentiable steps): they are not read here, and
    `StepScalars` then holds tensors.

    Args:
        lr: learning rate at this step, >= 0, finite.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the root, >= 0.
        weight_decay: lambda, >= 0.
        decay: "l2" adds lambda*theta to the gradient (Adam); "lr" multiplies theta by 1 - lr*lambda (AdamW as in
            torch); "independent" by 1 - lambda*lr/base_lr (arXiv 1711.05101, Algorithm 2); "corrected" by
            1 - lambda*lr^2/base_lr (arXiv 2506.02285); "none" ignores lambda.
        base_lr: the learning rate that a schedule starts from; > 0, read by "independent" and "corrected" only.
        amsgrad: "off", "raw" (maximum of v: torch, Keras) or "corrected" (maximum of vhat: optax).
        maximize: ascend instead of descend.
        eps_mode: "alg1" adds eps after the bias correction of v (the paper's Algorithm 1: torch, optax);
            "hat" before it (the paper's epsilon hat: Keras).
        eps_root: added inside the root, to the corrected v (optax), >= 0.
        bias_correction: divide the moments by 1 - beta^t.
        ema_decay: memory of the weights' moving average, in [0, 1); None keeps none.
        cautious_decay: decoupled decay does not act on elements whose update and weight have opposite signs
            (arXiv 2510.12402).

    Raises:
        ValueError: naming the value, the rule and the fix.

    Example:
        >>> Hyper(lr=-1.0)
        Traceback (most recent call last):
        ...
        ValueError: Invalid learning rate: -1.0 (lr must be finite and >= 0)
    """

    lr: Any = 1e-3
    beta1: Any = 0.9
    beta2: Any = 0.999
    eps: float = 1e-8
    weight_decay: Any = 0.0
    decay: DecayMode = "l2"
    base_lr: float = 0.0
    amsgrad: Literal["off", "raw", "corrected"] = "off"
    maximize: bool = False
    eps_mode: Literal["alg1", "hat"] = "alg1"
    eps_root: float = 0.0
    bias_correction: bool = True
    ema_decay: float | None = None
    cautious_decay: bool = False

    def __post_init__(self) -> None:
        """Check every field: the wording up to the bracket is torch's, which its own tests look for."""
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
    """The factors of one step, the same for every element: float64, or 0-d tensors when `Hyper` or the step are.

    Args:
        grad_factor: multiplies the incoming gradient: -1 to maximise, 1/scale to undo a loss scale, less where the
            gradient's norm is clipped.
        l2: coupled weight decay, times the parameter, added to the gradient.
        beta1: memory of the first moment.
        beta1_complement: 1 - beta1.
        beta2: memory of the second moment.
        beta2_complement: 1 - beta2.
        step_size: lr * sqrt(c2) / c1 (lr / c1 for amsgrad "corrected").
        eps: added to the root.
        eps_root: added inside the root.
        decay: decoupled weight decay of this step, times the parameter, subtracted from it.
        max_factor: multiplies v before the running maximum of amsgrad.
        average: the new parameter's weight in its moving average: 1 - ema_decay, 1 where the average begins with it,
            0 where none is kept.
        amsgrad: whether a running maximum is kept.
        moves: whether parameters may change: False exactly when lr is the number 0.
        random: the key of the step's random bits (`adamas.formats.random_bits`); None where there are none.
        skip: a 0-d tensor that says on the device whether this step is to change nothing; None where the host decided.
        cautious: whether decoupled decay leaves alone the elements whose update and weight have opposite signs.
    """

    grad_factor: Any
    l2: Any
    beta1: Any
    beta1_complement: Any
    beta2: Any
    beta2_complement: Any
    step_size: Any
    eps: Any
    eps_root: Any
    decay: Any
    max_factor: Any
    average: Any
    amsgrad: bool
    moves: bool
    random: Key | None = None
    skip: Any = None
    cautious: bool = False

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
        """The scalars of step number `step` (1 for the first; a number or a 0-d float64 tensor).

        Args:
            hyper: the group's hyperparameters.
            step: the number of this step, counted from 1.
            grad_factor: what the gradients are to be multiplied with before anything else: see `grad_factor`.
            average_begins: whether the moving average starts at this step, as a copy of the new parameter: a bool, or
                a 0-d tensor where only the device knows.
            seed: of random rounding; None where there is none.
            lr: in place of the group's, where a schedule has changed nothing else; a number that `check_rate` passed.

        Example:
            >>> StepScalars.of(Hyper(lr=0.1, beta1=0.5, beta2=0.75, eps=0.0), step=1).step_size
            0.1
        """
        lr = hyper.lr if lr is None else lr
        c1 = 1 - hyper.beta1**step if hyper.bias_correction else 1.0
        c2 = 1 - hyper.beta2**step if hyper.bias_correction else 1.0
        corrected = hyper.amsgrad == "corrected"
        root = c2**0.5
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
            average=_average(hyper.ema_decay, average_begins),
            amsgrad=hyper.amsgrad != "off",
            moves=hasattr(lr, "detach") or lr != 0,
            random=None if seed is None else step_key(int(seed), step),
            cautious=hyper.cautious_decay,
        )


def _average(ema_decay: float | None, begins: Any) -> Any:
    """The weight of the new parameter in its moving average."""
    if ema_decay is None:
        return 0.0
    if hasattr(begins, "detach"):
        return begins.double().clamp_min(1 - ema_decay)
    return 1.0 if begins else 1 - ema_decay


def check_max_norm(max_norm: Any) -> None:
    """Raise ValueError unless `max_norm` is None or a positive number."""
    if max_norm is not None and not _number(max_norm) > 0:
        raise ValueError(f"max_norm={max_norm!r} must be > 0, or None not to clip; math.inf only measures the norm")


def grad_factor(scale: Any, norm: Any, max_norm: float | None) -> Any:
    """What gradients are multiplied with so that a loss scale is undone and their global norm is at most `max_norm`.

    The clipping factor is that of `torch.nn.utils.clip_grad_norm_`: max_norm / (norm + 1e-6), at most 1, NaN where the
    norm is. With max_norm = inf nothing is clipped, not even by an infinite norm.

    Args:
        scale: by which the loss was multiplied, a number or a 0-d tensor.
        norm: of all gradients with the scale undone, likewise; read only where there is a finite `max_norm`.
        max_norm: the limit; None for none.

    Example:
        >>> grad_factor(2.0, norm=9.999999, max_norm=5.0)
        0.25
    """
    if max_norm is None or max_norm == math.inf:
        return 1.0 / scale
    clip = max_norm / (norm + 1e-6)
    clip = clip.clamp(max=1.0) if hasattr(clip, "clamp") else 1.0 if clip > 1.0 else clip
    return clip / scale
