"""The rule in torch operations: any device, dtype and tensor subclass, complex, capturable and differentiable.

float32 arithmetic or better: parameters of 16 bits are widened, stepped and rounded back; what is stored in fewer bits
is decoded, stepped and encoded, some million elements at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError, Traits, moment_dtype, state_names

if TYPE_CHECKING:
    from adamas.kernels.stored import Place
    from adamas.scalars import StepScalars

NAME = "eager"

Operand = Any  # a tensor, or with foreach a list of tensors
Ops = Callable[..., Operand]


def refuses(traits: Traits) -> str | None:
    """Why this kernel cannot step such a parameter: it can step any."""
    return None


@dataclass(slots=True)
class Prepared:
    """A bucket and the gradients of the coming step, which are let go after it."""

    bucket: Bucket
    grads: list[Tensor | None]


def prepare(bucket: Bucket) -> Prepared:
    """Nothing is kept but the bucket itself."""
    return Prepared(bucket, [])


def take(prepared: Prepared, grads: list[Tensor | None]) -> None:
    """Take the gradients, after checking that they and the moments fit their parameters."""
    bucket = prepared.bucket
    for i, (param, state, grad) in enumerate(zip(bucket.params, bucket.states, grads, strict=True)):
        if grad is None and not bucket.averages:
            continue
        if grad is not None:
            if grad.layout is not torch.strided:
                raise MismatchError(f"grad {i} is {grad.layout}")
            _check_place(f"grad {i}", grad, param)
        packed = {} if bucket.storage.plain else _parts(bucket, param)
        for name in state_names(bucket.amsgrad, bucket.averages, bucket.storage):
            if name not in state:
                raise MismatchError(f"{name} {i} is missing")
            if name in packed:
                if (state[name].dtype, state[name].shape) != packed[name] or state[name].device != param.device:
                    raise MismatchError(f"{name} {i} does not fit a parameter of shape {tuple(param.shape)}")
                continue
            _check_place(f"{name} {i}", state[name], param)
            if state[name].dtype != moment_dtype(param):
                raise MismatchError(f"{name} {i} is {state[name].dtype}, its parameter {param.dtype}")
    prepared.grads = grads


def _parts(bucket: Bucket, param: Tensor) -> dict[str, Any]:
    from adamas.kernels import stored

    return stored.parts(bucket.storage, param)


def _check_place(what: str, tensor: Tensor, param: Tensor) -> None:
    if tensor.shape != param.shape or tensor.device != param.device:
        raise MismatchError(
            f"{what} is {tuple(tensor.shape)} on {tensor.device}, its parameter {tuple(param.shape)} on {param.device}"
        )


def release(prepared: Prepared) -> None:
    """Let the gradients go."""
    prepared.grads = []


def squares(prepared: Prepared) -> list[Tensor]:
    """Each gradient's sum of squares, a 0-d tensor on its device: float64 where the device has it."""
    grads = [grad for grad in prepared.grads if grad is not None]
    with torch.no_grad():
        return [torch.linalg.vector_norm(_real(grad), dtype=_widest(grad.device)).square() for grad in grads]


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor of a bucket that has a gradient: with foreach all that take the same step at once."""
    bucket, grads = prepared.bucket, prepared.grads
    prepared.grads = []
    names = state_names(bucket.amsgrad, bucket.averages)
    if not bucket.storage.plain:
        return _step_stored(bucket, grads, scalars, which, zero_grad)
    members: list[list[list[Any]]] = [[] for _ in scalars]  # those of each different step
    for i, (param, grad, state) in enumerate(zip(bucket.params, grads, bucket.states, strict=True)):
        if grad is not None or bucket.averages:
            members[which[i] if which else 0].append([param, grad, *(state[name] for name in names)])
    with torch.set_grad_enabled(bucket.differentiable):
        for each, alike in zip(scalars, members, strict=True):
            present = [member for member in alike if member[1] is not None]
            if bucket.foreach and each.skip is None:
                for uniform in _alike(present):
                    _step_list([list(tensors) for tensors in zip(*uniform, strict=True)], each, bucket.averages)
            else:
                for member in present:
                    _step_one(member, each, bucket)
            if len(present) < len(alike):
                for param, grad, *states in alike:
                    if grad is None:
                        _average(param, states[-1], each, _in_place if each.skip is None else _recorded)
    if zero_grad:
        _zero(grads)


def _zero(grads: list[Tensor | None]) -> None:
    for grad in grads:
        if grad is not None:
            grad.detach().zero_()


ELEMENTS = 1 << 20  # of a parameter that are decoded at once: random bits and patterns take 8 bytes each


@torch.no_grad()
def _step_stored(
    bucket: Bucket, grads: list[Tensor | None], scalars: list[StepScalars], which: list[int] | None, zero_grad: bool
) -> None:
    """Step tensors whose moments or weights are stored in fewer bits, one by one: decode, the rule, encode."""
    from adamas.kernels import stored

    for i, (param, grad, state) in enumerate(zip(bucket.params, grads, bucket.states, strict=True)):
        if grad is None and not bucket.averages:
            continue
        each, place = scalars[which[i] if which else 0], stored.Place.of(param)
        names = state_names(bucket.amsgrad, bucket.averages, bucket.storage)
        tensors: dict[str, Any] = {"param": param.detach(), "grad": grad, **{name: state[name] for name in names}}
        tensors = {name: x if x is None else stored.local(x) for name, x in tensors.items()}
        if param.ndim == 0 or param.numel() <= ELEMENTS:
            _step_rows(tensors, place, each, bucket)
            continue
        rows = tensors["param"].shape[0]
        some = max(1, ELEMENTS * rows // param.numel())
        for row in range(0, rows, some):
            part = {name: x if x is None else x[row : row + some] for name, x in tensors.items()}
            _step_rows(part, place.from_row(row), each, bucket)
    if zero_grad:
        _zero(grads)


def _step_rows(tensors: dict[str, Any], place: Place, scalars: StepScalars, bucket: Bucket) -> None:
    """Step some rows of a parameter, or let their average go on, where there is no gradient."""
    from adamas.kernels import stored

    storage, param, grad = bucket.storage, tensors["param"], tensors["grad"]
    if grad is not None:
        random = None if scalars.random is None else stored.random_of(scalars.random, param, place)
        wide = stored.weight(storage, tensors, param)
        moments = stored.moments(storage, tensors, param)
        maxima = [tensors["max_exp_avg_sq"]] if bucket.amsgrad else []
        operands = [wide, grad.detach().to(wide.dtype), *moments, *maxima]
        change, first, second, *greatest = _rule(_recorded, operands, scalars, wide.dtype)
        if storage.moments == "wide":
            results = {"exp_avg": first, "exp_avg_sq": second}
        else:
            results = stored.encoded_moments(storage, first, second, random)
        if greatest:
            results["max_exp_avg_sq"] = greatest[0]
        if scalars.moves:
            results |= stored.encoded_weight(storage, wide, change, param.dtype, random)
        for name, value in results.items():
            stored.put(tensors[name], value, scalars.skip)
    if bucket.averages:
        _put(
            tensors["ema"],
            _mean(_recorded, tensors["ema"], stored.weight(storage, tensors, param), scalars.average),
            scalars.skip,
        )


def _alike(members: list[list[Tensor]]) -> list[list[list[Tensor]]]:
    """Members (parameter, gradient, states) by device and dtypes: torch's list operations want uniform lists."""
    alike: dict[tuple[Any, ...], list[list[Tensor]]] = {}
    for member in members:
        param, grad, *_ = member
        alike.setdefault((param.device, param.dtype, grad.dtype), []).append(member)
    return list(alike.values())


def _foreach(name: str, first: list[Tensor], *args: Any, **kwargs: Any) -> list[Tensor]:
    """Torch's list operation of that name; in-place ones return their list too."""
    result = getattr(torch, f"_foreach_{name}")(first, *args, **kwargs)
    return first if name.endswith("_") else result


def _in_place(name: str, first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return getattr(first, name)(*args, **kwargs)


def _recorded(name: str, first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Never in place, so that what autograd saved, or a skipped step, stays as it was."""
    return args[0] if name == "copy_" else getattr(first, name.rstrip("_"))(*args, **kwargs)


def _step_list(tensors: list[list[Tensor]], scalars: StepScalars, averages: bool) -> None:
    """Step a uniform list of tensors with one operation for all at a time."""
    params, grads, *states = ([_real(tensor) for tensor in group] for group in tensors)
    dtype = states[0][0].dtype
    wide = params if params[0].dtype == dtype else [param.to(dtype) for param in params]
    grads = grads if grads[0].dtype == dtype else [grad.to(dtype) for grad in grads]
    emas = states.pop() if averages else []
    change, *_ = _rule(_foreach, [wide, grads, *states], scalars, dtype)
    if scalars.moves:
        _foreach("sub_", wide, change)
    if wide is not params and scalars.moves:
        _foreach("copy_", params, wide)
    if emas:
        stored = params if wide is params else [param.to(dtype) for param in params]
        _mean(_foreach, emas, stored, scalars.average)


def _step_one(tensors: list[Tensor], scalars: StepScalars, bucket: Bucket) -> None:
    """Step one parameter: in place, or recorded by autograd and copied back, or copied back unless told to skip."""
    param, grad, *states = (_real(tensor) for tensor in tensors)
    dtype = states[0].dtype
    ema, differentiable = states.pop() if bucket.averages else None, bucket.differentiable
    in_place = not differentiable and scalars.skip is None
    apply = _in_place if in_place else _recorded
    wide = param.clone() if differentiable and param.dtype == dtype else param.to(dtype)
    operands = [wide, grad.to(dtype), *(state.clone() if differentiable else state for state in states)]
    change, *results = _rule(apply, operands, scalars, dtype)
    for state, result in zip(states, results, strict=True):
        _put(state, result, scalars.skip)
    if scalars.moves:
        _put(param, apply("sub_", wide, change), scalars.skip)
    if ema is not None:
        _average(param, ema, scalars, apply)


def _average(param: Tensor, ema: Tensor, scalars: StepScalars, apply: Ops) -> None:
    """Let the average of one parameter go on."""
    param, ema = _real(param), _real(ema)
    _put(ema, _mean(apply, ema, param.to(ema.dtype), scalars.average), scalars.skip)


def _put(target: Tensor, value: Tensor, skip: Tensor | None) -> None:
    """Write a result to where it belongs, if it is not there already, unless the device says to skip."""
    if value is not target:
        target.copy_(value if skip is None else torch.where(skip, target, value))


def _mean(apply: Ops, ema: Operand, stored: Operand, weight: Any) -> Operand:
    """The moving average of the weights as they are stored; with a weight of 1 it begins as their copy."""
    if isinstance(weight, Tensor):
        return apply("lerp_", ema, stored, weight.to(ema.dtype))
    return apply("copy_", ema, stored) if weight == 1 else apply("lerp_", ema, stored, weight)


def _rule(apply: Ops, operands: list[Operand], scalars: StepScalars, dtype: torch.dtype) -> list[Operand]:
    """The recurrence of `adamas.scalars`, in the operations of `apply`; the parameter's change, and its new moments.

    Args:
        apply: calls the torch operation of a name on tensors or on lists of them.
        operands: parameter, gradient, first moment, second moment and, with amsgrad, its running maximum.
        scalars: the factors of this step.
        dtype: in which it is computed.
    """
    s = scalars._replace(**{k: x.to(dtype) for k, x in scalars._asdict().items() if isinstance(x, Tensor)})
    param, grad, exp_avg, exp_avg_sq, *max_exp_avg_sq = operands
    if not _is(1, s.grad_factor):
        grad = apply("mul", grad, s.grad_factor)
    if not _is(0, s.l2):
        grad = apply("add", grad, apply("mul", param, s.l2))
    exp_avg = apply("lerp_", exp_avg, grad, s.beta1_complement)
    square = apply("mul", apply("mul", grad, s.beta2_complement), grad)  # in this order grad**2 is never formed
    exp_avg_sq = apply("add_", apply("mul_", exp_avg_sq, s.beta2), square)
    second = exp_avg_sq
    if s.amsgrad:
        candidate = exp_avg_sq if _is(1, s.max_factor) else apply("mul", exp_avg_sq, s.max_factor)
        second = max_exp_avg_sq[0] = apply("clamp_min_", max_exp_avg_sq[0], candidate)
    if not _is(0, s.eps_root):
        second = apply("add", second, s.eps_root)
    denominator = apply("add_", apply("sqrt", second), _at_least_tiny(s.eps, dtype))
    change = apply("mul_", apply("div", exp_avg, denominator), s.step_size)
    if not _is(0, s.decay):
        change = apply("add_", change, apply("mul", param, s.decay))
    if isinstance(s.step_size, Tensor) and not s.step_size.requires_grad:
        # lr = 0 moves nothing, not even where the change is not a number.
        change = change.masked_fill(s.step_size == 0, 0.0)
    return [change, exp_avg, exp_avg_sq, *max_exp_avg_sq]


def _is(number: int, scalar: Any) -> bool:
    """Whether a scalar is this number, known without asking a device: False for a tensor."""
    return not isinstance(scalar, Tensor) and scalar == number


def _at_least_tiny(eps: Any, dtype: torch.dtype) -> Any:
    """eps, which must not round to 0 in a narrower type: eps > 0 keeps 0/0 away."""
    if isinstance(eps, Tensor):
        return eps.clamp_min(torch.finfo(dtype).tiny)
    return max(eps, torch.finfo(dtype).tiny) if eps > 0 else eps


def _real(tensor: Tensor) -> Tensor:
    """A complex tensor as one of pairs of real numbers: Adam treats the two parts apart."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
