"""The rule in torch operations, for any device, dtype and tensor subclass; complex, capturable and differentiable too.

Arithmetic is in float32 or wider: 16-bit parameters are widened, stepped and rounded back. Moments and weights stored
in fewer bits are decoded, stepped and encoded, about a million elements at a time.

The rule is written twice, and both versions are tested against the reference:
- `_step_list` works in place, with one operation for a whole list of tensors: with foreach for all tensors of one
  gradient dtype and step, otherwise for one tensor.
- `functional.update` is a pure function. It serves steps that autograd records or a device may skip, scalars that are
  tensors, and states in fewer bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas import formats
from adamas.formats.random_bits import Place
from adamas.kernels import functional
from adamas.kernels.bucket import Bucket, MismatchError, Traits, moment_dtype, state_names
from adamas.kernels.counter import DeviceCounter, HostCounter, Upcoming, counter_of
from adamas.state.layout import ORDINARY, parts

if TYPE_CHECKING:
    from adamas.formats.names import Storage
    from adamas.scalars import StepScalars

NAME = "eager"
Kind = tuple[torch.dtype, tuple[int, ...], torch.device, torch.layout]
_kind: Any = attrgetter("dtype", "shape", "device", "layout")
Tensors = dict[str, Any]  # "param", "grad" and the states by name, of one parameter or of some of its rows
PLAIN_TYPES = {*ORDINARY, type(None)}
MULTIPLIED = ("grad_factor", "l2", "beta2", "beta2_complement", "max_factor", "step_size", "decay")
WIDEST = {"mps": torch.float32}
lists: Any = torch  # untyped: the stubs of torch lack the list operations
ELEMENTS = 1 << 20  # elements decoded at once: random bits and patterns take 8 bytes an element


def refuses(traits: Traits) -> str | None:
    """Return None: this kernel can step any parameter."""
    return None


@dataclass(slots=True, eq=False, repr=False)
class Prepared:
    """A bucket, the required kinds of its tensors, and the gradients until the step is done.

    `in_place` tells whether list operations can step the tensors: tensor subclasses (DTensor) do not implement all of
    these operations, and they cannot write a lazily negated view.
    """

    bucket: Bucket
    params: list[Kind]  # the kind of each parameter when the bucket was prepared
    states: list[dict[str, Kind]]  # the kinds of the states of each parameter, by name
    in_place: bool
    counter: HostCounter | DeviceCounter | None  # None where steps are not counted
    grads: list[Tensor | None]


def prepare(bucket: Bucket) -> Prepared:
    """Record the kinds of a bucket's parameters, and those that its storage requires of the states."""
    names, states = state_names(bucket.amsgrad, bucket.averages, bucket.storage), []
    for i, param in enumerate(bucket.params):
        if param.is_conj() or (param.is_neg() and param.is_complex()):
            raise ValueError(f"param {i} is a lazily conjugated or negated view of other numbers: resolve it first")
        kinds: dict[str, Any] = dict.fromkeys(names, (moment_dtype(param), param.shape))
        kinds |= parts(bucket.storage, param)
        states.append({name: (*kind, param.device, torch.strided) for name, kind in kinds.items()})
    in_place = bucket.storage.plain and not bucket.differentiable and {*map(type, bucket.params)} <= PLAIN_TYPES
    in_place = in_place and not any(map(Tensor.is_neg, bucket.params))
    return Prepared(bucket, list(map(_kind, bucket.params)), states, in_place, counter_of(bucket), [])


def take(prepared: Prepared, grads: list[Tensor | None] | None = None) -> None:
    """Check parameters, states and gradients, and take the gradients, by default those in `.grad`."""
    bucket = prepared.bucket
    grads = [param.grad for param in bucket.params] if grads is None else grads
    if prepared.counter is not None:
        prepared.counter.check()
    members = zip(bucket.params, prepared.params, bucket.states, prepared.states, grads, strict=True)
    for i, (param, kind, state, kinds, grad) in enumerate(members):
        _check(f"param {i}", param, kind)
        if grad is not None:
            _check(f"grad {i}", grad, (grad.dtype, *kind[1:]))
        elif not bucket.averages:
            continue
        for name, expected in kinds.items():
            if name not in state:
                raise MismatchError(f"{name} {i} is missing")
            _check(f"{name} {i}", state[name], expected)
    prepared.grads = grads


def _check(what: str, tensor: Tensor, kind: Kind) -> None:
    if _kind(tensor) != kind:
        found, wanted = ("{}, {} on {}, {}".format(x[0], tuple(x[1]), *x[2:]) for x in (_kind(tensor), kind))
        raise MismatchError(f"{what} is {found}, not {wanted}")


def upcoming(prepared: Prepared) -> Upcoming:
    """Return the numbers of the coming steps, and for each parameter the index of its own."""
    assert prepared.counter is not None, "a bucket that counts"
    return prepared.counter.upcoming()


def release(prepared: Prepared) -> None:
    """Drop the gradients without a step."""
    prepared.grads = []


def squares(prepared: Prepared) -> list[Tensor]:
    """Return each gradient's sum of squares as a 0-d tensor on its device, float64 where the device has it."""
    grads = [_resolved(grad) for grad in prepared.grads if grad is not None]
    with torch.no_grad():
        return [
            torch.linalg.vector_norm(grad, dtype=WIDEST.get(grad.device.type, torch.float64)).square() for grad in grads
        ]


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor that has a gradient, and update the averages of all tensors."""
    bucket, grads = prepared.bucket, prepared.grads
    in_place = prepared.in_place and {*map(type, grads)} <= PLAIN_TYPES
    in_place = in_place and not any(isinstance(x, Tensor) for each in scalars for x in each)
    scalars = [_factors(each, bucket.params[0]) for each in scalars] if in_place else scalars
    alike: dict[Any, list[int]] = {}  # a list operation needs tensors of one dtype
    for i, grad in enumerate(grads):
        if grad is not None or bucket.averages:
            n = which[i] if which else 0
            key = (n, None if grad is None else grad.dtype) if bucket.foreach else (n, i)
            alike.setdefault(key, []).append(i)
    with torch.set_grad_enabled(bucket.differentiable):
        for (n, _), members in alike.items():
            if in_place:
                _step_list(bucket, members, [grads[i] for i in members], scalars[n])
            else:
                for i in members:
                    _step_purely(bucket, i, grads[i], scalars[n])
    if zero_grad:
        for grad in grads:
            if grad is not None:
                grad.detach().zero_()
    if prepared.counter is not None:
        prepared.counter.advance([i for i, grad in enumerate(grads) if grad is None], scalars[0].skip)
    prepared.grads = []


def _factors(s: StepScalars, param: Tensor) -> StepScalars:
    """Return the scalars with factors, except 0 and 1, as 0-d tensors: on the CPU numbers take three times as long."""
    if param.device.type != "cpu":
        return s
    dtype = torch.float64 if param.dtype in (torch.float64, torch.complex128) else torch.float32
    factors = {name: getattr(s, name) for name in MULTIPLIED}
    return s._replace(**{name: torch.tensor(x, dtype=dtype) for name, x in factors.items() if x not in (0, 1)})


def _step_list(bucket: Bucket, members: list[int], grads: list[Any], s: StepScalars) -> None:
    """Step the parameters with these indices in place; if they have no gradients, update only their averages."""
    names = state_names(bucket.amsgrad, bucket.averages)
    params = [_real(bucket.params[i]) for i in members]
    states = {name: [_real(bucket.states[i][name]) for i in members] for name in names}
    dtype = states["exp_avg"][0].dtype
    wide = _widened(params, dtype)
    if grads[0] is not None:
        change = _list_rule(wide, _widened([_resolved(grad) for grad in grads], dtype), states, s)
        if s.moves:
            lists._foreach_sub_(wide, change)
        if s.moves and wide is not params:
            lists._foreach_copy_(params, wide)
            wide = _widened(params, dtype)  # the values after rounding to the stored dtype
    if bucket.averages and s.average == 1:
        lists._foreach_copy_(states["ema"], wide)
    elif bucket.averages:
        lists._foreach_lerp_(states["ema"], wide, s.average)


def _widened(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return tensors if tensors[0].dtype == dtype else [tensor.to(dtype) for tensor in tensors]


def _list_rule(
    params: list[Tensor], grads: list[Tensor], states: dict[str, list[Tensor]], s: StepScalars
) -> list[Tensor]:
    """Write the new moments and maxima of `adamas.scalars`' recurrence in place, and return the parameters' changes."""
    exp_avgs, second = states["exp_avg"], states["exp_avg_sq"]
    if not _is(1, s.grad_factor):
        grads = lists._foreach_mul(grads, s.grad_factor)
    if not _is(0, s.l2):
        grads = lists._foreach_add(grads, lists._foreach_mul(params, s.l2))
    lists._foreach_lerp_(exp_avgs, grads, s.beta1_complement)
    squares = lists._foreach_mul(grads, s.beta2_complement)
    lists._foreach_mul_(squares, grads)  # in this order grad**2, which may overflow, is never formed
    lists._foreach_mul_(second, s.beta2)
    lists._foreach_add_(second, squares)
    del squares  # the next temporary reuses the memory
    if s.amsgrad:
        second = second if _is(1, s.max_factor) else lists._foreach_mul(second, s.max_factor)
        lists._foreach_clamp_min_(states["max_exp_avg_sq"], second)
        second = states["max_exp_avg_sq"]
    if s.eps_root != 0:
        second = lists._foreach_add(second, s.eps_root)
    denominators = lists._foreach_sqrt(second)
    lists._foreach_add_(denominators, functional.at_least_tiny(torch, s.eps, _name(params[0])))
    change = lists._foreach_div(exp_avgs, denominators)
    del denominators
    lists._foreach_mul_(change, s.step_size)
    if not _is(0, s.decay):
        dtype = _name(params[0])
        pairs = zip(params, exp_avgs, strict=True)
        decays = [functional.decaying(torch, dtype, param, exp_avg, s) for param, exp_avg in pairs]
        lists._foreach_mul_(decays, s.decay)
        lists._foreach_add_(change, decays)
    return change


def _rule(tensors: Tensors, grad: Tensor, s: StepScalars) -> tuple[Tensor, list[Tensor]]:
    """Return the parameter's change and its new moments and maximum: the same recurrence as a pure function."""
    param, dtype = tensors["param"], _name(tensors["param"])
    s = s._replace(**{k: x.to(param.dtype) for k, x in s._asdict().items() if isinstance(x, Tensor)})
    old = functional.Tensors(param, *(tensors.get(name) for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")))
    change, new = functional.update(torch, dtype, s, grad, old)
    return change, [x for x in new[1:] if x is not None]


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _step_purely(bucket: Bucket, i: int, grad: Tensor | None, s: StepScalars) -> None:
    """Step one parameter with the pure rule: whole, or some rows at a time if it must be decoded."""
    param, names = bucket.params[i], state_names(bucket.amsgrad, bucket.averages, bucket.storage)
    tensors: Tensors = {"param": param, **{name: bucket.states[i][name] for name in names}}
    if grad is not None:
        tensors["grad"] = grad
    if bucket.storage.plain:
        tensors = {name: _resolved(x) if name == "grad" else _real(x) for name, x in tensors.items()}
        return _step_rows(tensors, Place(), s, bucket)
    if not param.numel():
        return None  # an empty shard
    place = bucket.places[i] if bucket.places else Place()
    if param.ndim == 0 or param.numel() <= ELEMENTS:
        return _step_rows(tensors, place, s, bucket)
    rows, columns = param.shape[0], param[0].numel()
    some = max(1, ELEMENTS * rows // param.numel())
    for row in range(0, rows, some):
        _step_rows({name: x[row : row + some] for name, x in tensors.items()}, place.after(row * columns), s, bucket)
    return None


def _step_rows(tensors: Tensors, place: Place, s: StepScalars, bucket: Bucket) -> None:
    """Step some rows of a parameter, or without a gradient update only their average."""
    stored = formats.stored
    storage, param = bucket.storage, tensors["param"]
    if "grad" in tensors:
        # Autograd saves the tensors that the rule reads, and `put` overwrites them below.
        read = {name: x.clone() for name, x in tensors.items()} if bucket.differentiable else tensors
        random = stored.random_of(s.random, param, place) if s.random and storage.random else None
        weight = _weight(storage, read)
        moments = dict(zip(("exp_avg", "exp_avg_sq"), stored.moments(storage, read, param), strict=True))
        change, results = _rule({**read, **moments, "param": weight}, read["grad"].to(weight.dtype), s)
        new = dict(zip(("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), results, strict=False))
        if storage.moments != "wide":
            new |= stored.encoded_moments(storage, new.pop("exp_avg"), new.pop("exp_avg_sq"), random)
        if s.moves:
            new |= stored.encoded_weight(storage, weight, change, param.dtype, random)
        for name, value in new.items():
            stored.put(tensors[name], value, s.skip)
    if bucket.averages:
        weight, share = _weight(storage, tensors), s.average
        share = share.to(weight.dtype) if isinstance(share, Tensor) else share
        stored.put(tensors["ema"], functional.average(torch, tensors["ema"], weight, share), s.skip)


def _weight(storage: Storage, tensors: Tensors) -> Tensor:
    """Return the weight for the rule: float32 or wider, with its low bits if it has them."""
    stored = formats.stored
    param = tensors["param"]
    return param.to(moment_dtype(param)) if storage.plain else stored.weight(storage, tensors, param)


def _is(number: int, scalar: Any) -> bool:
    """Return whether a scalar is this number; False for a tensor, since reading it could wait for a device."""
    return not isinstance(scalar, Tensor) and scalar == number


def _real(tensor: Tensor) -> Tensor:
    """View a complex tensor as pairs of real numbers, which Adam steps independently."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _resolved(grad: Tensor) -> Tensor:
    """Return a gradient as real numbers, with a lazy conjugation or negation applied."""
    return _real(grad.resolve_conj().resolve_neg())
