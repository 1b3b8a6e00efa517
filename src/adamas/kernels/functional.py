"""The rule as a pure function of arrays, for NumPy, torch, JAX and TensorFlow; with the codecs for NumPy and JAX.

The array library is a parameter: any object with the functions sqrt, where, maximum, sign, clip and zeros_like, and
perhaps lerp. Arithmetic is in the dtype of the arrays, which must be float32 or float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from adamas.formats.arrays import Array
from adamas.formats.names import Storage
from adamas.formats.random_bits import random_bits
from adamas.scalars import StepScalars, is_tensor

TINY = {"float32": float(np.finfo(np.float32).tiny), "float64": float(np.finfo(np.float64).tiny)}
LARGEST = {"float32": float(np.finfo(np.float32).max), "float64": float(np.finfo(np.float64).max)}


class Tensors(NamedTuple):
    """One parameter with its moments, and the running maximum of amsgrad where that is kept."""

    param: Array
    exp_avg: Array
    exp_avg_sq: Array
    max_exp_avg_sq: Array | None = None


def update(xp: Any, dtype: str, s: StepScalars, grad: Array, old: Tensors) -> tuple[Array, Tensors]:
    """Return the change that a step subtracts from the parameter, and the new moments with the old parameter.

        g      = grad_factor * grad + l2 * param
        m      = beta1 * m + (1 - beta1) * g            as m + (1 - beta1) * (g - m) where beta1 >= 1/2
        v      = beta2 * v + (beta2_complement * g) * g
        change = step_size * m / (sqrt(v + eps_root) + eps) + decay * param

    Args:
        xp: the array library.
        dtype: the dtype of all arrays: "float32" or "float64".
        s: the factors of the step, numbers or 0-d arrays of this dtype.
        grad: the gradient.
        old: the parameter and its moments before the step.
    """
    param, m, v, v_max = old
    grad = grad * s.grad_factor
    if not _is(0, s.l2):
        grad = grad + param * s.l2
    m = _mean(xp, s, m, grad)
    v = v * s.beta2 + (grad * s.beta2_complement) * grad
    second = v
    if v_max is not None:
        second = v_max = xp.maximum(v_max, v * s.max_factor)
    if not _is(0, s.eps_root):
        second = second + s.eps_root
    change = m / (xp.sqrt(second) + at_least_tiny(xp, s.eps, dtype)) * s.step_size
    if not _is(0, s.decay):
        change = change + decaying(xp, dtype, param, m, s) * s.decay
    if is_tensor(s.step_size) and not getattr(s.step_size, "requires_grad", False):
        # With lr = 0 no parameter may move, not even where the change is NaN.
        change = xp.where(s.step_size == 0, xp.zeros_like(change), change)
    return change, Tensors(param, m, v, v_max)


def _mean(xp: Any, s: StepScalars, m: Array, grad: Array) -> Array:
    """Return the new first moment, in the form that errs less for this beta1."""
    if hasattr(xp, "lerp"):  # torch's, with the bits of its list operations
        return xp.lerp(m, grad, s.beta1_complement)
    pulled = m + s.beta1_complement * (grad - m)
    if is_tensor(s.beta1):
        return xp.where(s.beta1 >= 0.5, pulled, s.beta1 * m + s.beta1_complement * grad)
    return pulled if s.beta1 >= 0.5 else s.beta1 * m + s.beta1_complement * grad


def decaying(xp: Any, dtype: str, param: Array, m: Array, s: StepScalars) -> Array:
    """Return the weight that decoupled decay multiplies: clamped to finite, and 0 where cautious decay does not act."""
    finite = xp.clip(param, -LARGEST[dtype], LARGEST[dtype])
    # The product of two signs, unlike that of two numbers, does not underflow.
    return xp.where(xp.sign(m) * xp.sign(param) < 0, xp.zeros_like(finite), finite) if s.cautious else finite


def _is(number: int, scalar: Any) -> bool:
    """Return whether a scalar is this number; False for a tensor, which may only be traced."""
    return not is_tensor(scalar) and scalar == number


def at_least_tiny(xp: Any, eps: Any, dtype: str) -> Any:
    """Return eps, raised so that a positive eps does not round to 0 in a narrower dtype: eps > 0 prevents 0/0."""
    if is_tensor(eps):
        return xp.maximum(eps, xp.zeros_like(eps) + TINY[dtype])
    return max(eps, TINY[dtype]) if eps > 0 else eps


def average(xp: Any, ema: Array, param: Array, share: Any) -> Array:
    """Return the average of the weights after `param` is added with this share; a share of 1 gives a copy."""
    moved = xp.lerp(ema, param, share) if hasattr(xp, "lerp") else ema + share * (param - ema)
    if is_tensor(share):
        return xp.where(share == 1, param, moved)
    return param if share == 1 else moved


def step(
    xp: Any, storage: Storage, s: StepScalars, grad: Array, param: Array, state: Mapping[str, Array], index: Array
) -> dict[str, Array]:
    """Return the parameter, under "param", and the state after a step, for arrays of NumPy or JAX.

    Args:
        xp: the array library, `numpy` or `jax.numpy`.
        storage: how moments and weight are stored.
        s: the factors of the step, numbers or 0-d arrays of the rule's dtype.
        grad: the gradient, in any dtype.
        param: the parameter.
        state: the arrays of its state, by name.
        index: the elements' positions in the whole parameter, shaped like it; read only with random rounding.
    """
    dtype = "float64" if str(param.dtype) == "float64" else "float32"
    from adamas.formats import array_state as stored  # the codecs, which plain storage does not need

    random = random_bits(s.random, index) if storage.random and s.random is not None else None
    weight = stored.weight(storage, state, param, dtype)
    m, v = stored.moments(storage, state, param)
    old = Tensors(weight, m, v, state.get("max_exp_avg_sq"))
    with np.errstate(all="ignore"):
        change, new = update(xp, dtype, s, grad.astype(dtype), old)
        found = stored.encoded_moments(storage, new.exp_avg, new.exp_avg_sq, random)
        if s.moves:
            found |= stored.encoded_weight(storage, weight, change, param, random)
        if new.max_exp_avg_sq is not None:
            found["max_exp_avg_sq"] = new.max_exp_avg_sq
        whole = {"param": param, **state, **found}
        if "ema" in state:
            now = stored.weight(storage, whole, whole["param"], dtype)
            whole["ema"] = average(xp, state["ema"], now, s.average)
    return whole


def square_sum(xp: Any, grad: Array, wide: str) -> Array:
    """Return the sum of squares of a gradient, in the wider dtype of this name."""
    wider = grad.astype(wide)
    return xp.sum(wider * wider)


def zeros(xp: Any, storage: Storage, shape: tuple[int, ...], dtype: str) -> dict[str, Array]:
    """Return moments, and low bits where there are master weights, before the first step: all zero."""
    from adamas.formats.array_state import dtype_of, parts

    return {name: xp.zeros(part.shape, dtype_of(part.dtype)) for name, part in parts(storage, shape, dtype).items()}


def moments(storage: Storage, state: Mapping[str, Array], param: Array) -> tuple[Array, Array]:
    """Return new arrays of both moments in float32 or wider, shaped like the parameter."""
    from adamas.formats.array_state import moments as decoded

    m, v = decoded(storage, state, param)
    return m + 0, v + 0
