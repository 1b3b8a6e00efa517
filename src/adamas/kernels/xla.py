"""The step of JAX's arrays in a traced program: the native kernel through XLA's foreign functions, or the pure rule.

On a CPU one call steps all arrays of a bucket in place, on XLA's own threads. On any other device, or without the
extension, the rule and the codecs are operations of XLA. Random bits depend on an element's index in the whole array,
so that the result does not depend on how arrays are sharded.

Sharded arrays stay where they are: each device steps its part. Packed formats may be sharded along the first dimension;
XLA gathers arrays that are sharded along others.
"""

from __future__ import annotations

from functools import cache, partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from adamas.decay import DecayMode
from adamas.formats.array_state import parts
from adamas.formats.names import PACKED, Storage, state_names
from adamas.formats.random_bits import Key
from adamas.kernels import functional
from adamas.kernels.extension import missing, native
from adamas.scalars import Hyper, StepScalars, is_tensor

TARGET = "adamas_step"
NUMBERS = StepScalars._fields[:12]
DTYPES = ("float32", "float64", "bfloat16", "float16")


def x64() -> Any:
    """Return a context in which operations may have types of 64 bits, also inside of a program that has only 32."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before jax 0.8 # pyright: ignore[reportAttributeAccessIssue]

    return enable_x64()


if native is not None:
    jax.ffi.register_ffi_target(TARGET, native.xla_step, platform="cpu")


class Kind(NamedTuple):
    """What is known of a step while it is traced, the same for all arrays of a bucket."""

    storage: Storage
    amsgrad: bool
    averages: bool
    cautious: bool
    absent: frozenset[str]  # the names of factors that are 0 at every step

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a parameter's states, in the kernel's order."""
        return state_names(self.amsgrad, self.averages, self.storage)


class Bucket(NamedTuple):
    """Parameters of one dtype and storage, with their gradients and states."""

    kind: Kind
    params: list[Any]
    grads: list[Any]
    states: list[dict[str, Any]]


def mechanism() -> tuple[str, str]:
    """Return what steps JAX's arrays on this machine, and the reason."""
    if native is None:
        return "xla", f"{missing}: the rule and the codecs are operations of XLA"
    if jax.default_backend() != "cpu":
        return "xla", f"on {jax.default_backend()} the rule and the codecs are operations of XLA"
    return "native", "in place through XLA's foreign functions, on XLA's threads"


def step(bucket: Bucket, scalars: StepScalars) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the parameters and the states after a step.

    Args:
        bucket: the arrays.
        scalars: the factors as 0-d arrays of float64, traced where 64-bit types are enabled.
    """
    with x64():
        numbers = jnp.stack([jnp.asarray(x, jnp.float64) for x in scalars[: len(NUMBERS)]])
        key = scalars.random or Key(0, 0)
        words = jnp.stack([jnp.asarray(x, jnp.uint32) for x in key])
        factors = jax.lax.bitcast_convert_type(numbers, jnp.uint32)  # a program may have no types of 64 bits
    operands = [factors, words]
    for param, grad, state in zip(bucket.params, bucket.grads, bucket.states, strict=True):
        operands += [grad, param, *(state[name] for name in bucket.kind.names)]
    in_order = _step_with(bucket.kind, operands)
    width = 1 + len(bucket.kind.names)
    found = [in_order[i : i + width] for i in range(0, len(in_order), width)]
    return [each[0] for each in found], [dict(zip(bucket.kind.names, each[1:], strict=True)) for each in found]


def _step_with(kind: Kind, operands: list[Any]) -> list[Any]:
    """Return parameters and states, by the kernel where the platform and the dtypes allow it."""
    width = 2 + len(kind.names)
    alike = all(operands[i].dtype == operands[i + 1].dtype for i in range(2, len(operands), width))
    known = len(operands) > 2 and str(operands[3].dtype) in DTYPES
    if native is None or not alike or not known:
        return _pure(kind, operands, None)
    return _batchable(kind)(*operands)


@cache
def _batchable(kind: Kind) -> Any:
    """Return the step as a function that `jax.vmap` can map; XLA's operations step a batch."""

    def pure(*operands: Any) -> list[Any]:
        return _pure(kind, list(operands), None)

    def step(*operands: Any) -> list[Any]:
        return jax.lax.platform_dependent(*operands, cpu=_partitioned(kind), default=pure)

    def batched(size: int, in_batch: list[bool], *operands: Any) -> Any:
        axes = tuple(0 if each else None for each in in_batch)
        found = jax.vmap(pure, in_axes=axes, axis_size=size)(*operands)
        return found, [True] * len(found)

    function = jax.custom_batching.custom_vmap(step)
    function.def_vmap(batched)
    return function


def _pure(kind: Kind, operands: list[Any], offsets: list[tuple[Any, tuple[int, ...]]] | None) -> list[Any]:
    """Return parameters and states by operations of XLA.

    Args:
        kind: what is known of the step.
        operands: the factors, the key, and for each parameter gradient, parameter and states.
        offsets: for each parameter, which is a shard, the indices of its first element in the whole array and the
            strides of the whole array; None where arrays are whole.
    """
    width = 2 + len(kind.names)
    with x64():
        numbers = jax.lax.bitcast_convert_type(operands[0], jnp.float64)
    found: list[Any] = []
    for n, i in enumerate(range(2, len(operands), width)):
        grad, param, *states = operands[i : i + width]
        dtype = jnp.float64 if param.dtype == jnp.float64 else jnp.float32
        with x64():
            factors = {name: x.astype(dtype) for name, x in zip(NUMBERS, numbers, strict=True)}
        factors |= dict.fromkeys(kind.absent, 0.0)
        s = StepScalars(**factors, amsgrad=kind.amsgrad, moves=True, random=Key(*operands[1]), cautious=kind.cautious)
        index = _index(param.shape, None if offsets is None else offsets[n]) if kind.storage.random else None
        state = dict(zip(kind.names, states, strict=True))
        new = functional.step(jnp, kind.storage, s, grad, param, state, index)
        found += [new["param"], *(new[name] for name in kind.names)]
    return found


def _index(shape: tuple[int, ...], place: tuple[Any, tuple[int, ...]] | None) -> Any:
    """Return the positions of an array's elements in the whole array, row-major, as uint32."""
    strides = tuple(prod(shape[d + 1 :]) for d in range(len(shape))) if place is None else place[1]
    index = jnp.uint32(0)
    for d, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        at = jnp.arange(size, dtype=jnp.uint32) + (jnp.uint32(0) if place is None else place[0][d])
        index = index[..., None] + at * jnp.uint32(stride)
    return index


def _native(kind: Kind, operands: list[Any], first: Any) -> list[Any]:
    """Return parameters and states by one call of the kernel, which writes into its arguments."""
    names, storage = kind.names, kind.storage
    width = 2 + len(names)
    outputs = [i for i in range(2, len(operands)) if (i - 2) % width]  # all but gradients
    call = jax.ffi.ffi_call(
        TARGET,
        [jax.ShapeDtypeStruct(operands[i].shape, operands[i].dtype) for i in outputs],
        input_output_aliases={i + 1: n for n, i in enumerate(outputs)},
        vmap_method="sequential",
    )
    found = call(
        operands[0],
        operands[1],
        first,
        *operands[2:],
        names=" ".join(names),
        moments=storage.moments,
        master_bits=np.int64(storage.master_bits or 0),
        stochastic=np.int64(storage.stochastic),
        amsgrad=np.int64(kind.amsgrad),
        cautious=np.int64(kind.cautious),
    )
    return list(found)


@cache
def _partitioned(kind: Kind) -> Any:
    """Return the kernel's call as a function of which XLA steps each shard where it is."""
    width = 2 + len(kind.names)

    def whole(*operands: Any) -> list[Any]:
        first = jnp.zeros(((len(operands) - 2) // width, 2), jnp.uint32)
        return _native(kind, list(operands), first)

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        specs = [_spec(x, kind) for x in arguments[3::width]]  # of the parameters
        shapes = [x.shape for x in arguments[3::width]]
        free = PartitionSpec()
        in_specs = [free, free]
        out_specs: list[Any] = []
        for spec, shape in zip(specs, shapes, strict=True):
            of_states = _state_specs(kind, spec, shape)
            in_specs += [spec, spec, *of_states]
            out_specs += [spec, *of_states]

        def of_shards(*operands: Any) -> list[Any]:
            return _step_shards(kind, mesh, specs, shapes, list(operands))

        placed = [NamedSharding(mesh, spec) for spec in out_specs]
        return mesh, of_shards, placed, tuple(NamedSharding(mesh, spec) for spec in in_specs)

    function = custom_partitioning(whole)
    function.def_partition(
        partition=partition,
        infer_sharding_from_operands=partial(_infer, kind),
        sharding_rule=partial(_sharding_rule, kind),
    )
    return function


def _infer(kind: Kind, mesh: Any, arguments: Any, results: Any) -> Any:
    """Return the shardings of the results: each parameter and its states stay where the parameter is."""
    width = 2 + len(kind.names)
    found: list[Any] = []
    for x in arguments[3::width]:
        spec = _spec(x, kind)
        found += [NamedSharding(mesh, each) for each in (spec, *_state_specs(kind, spec, x.shape))]
    return found


def _spec(argument: Any, kind: Kind) -> Any:
    """Return how a parameter is sharded for the step: as it is, or along its first dimension only for packed words."""
    spec = tuple(getattr(argument.sharding, "spec", ()))
    return PartitionSpec(*spec[:1]) if kind.storage.moments in PACKED else PartitionSpec(*spec)


def _state_specs(kind: Kind, spec: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return how the states of a parameter are sharded: those in rows along their first dimension."""
    made = parts(kind.storage, shape, "float32")
    in_shape = [name not in made or tuple(made[name].shape[: len(shape)]) == tuple(shape) for name in kind.names]
    return [spec if same else PartitionSpec(*tuple(spec)[:1]) for same in in_shape]


def _sharding_rule(kind: Kind, mesh: Any, arguments: Any, results: Any) -> Any:
    """Return which dimensions of arguments and results belong together, for Shardy."""
    del mesh, results
    width = 2 + len(kind.names)
    packed = kind.storage.moments in PACKED
    operands: list[Any] = [ArrayMapping("a", "b"), ArrayMapping("c")]
    found: list[Any] = []
    whole = ["a", "b", "c"]  # factors of dimensions that are not sharded
    for i in range(2, len(arguments), width):
        shape = tuple(arguments[i + 1].shape)
        dims = [f"p{i}_{d}" for d in range(len(shape))]
        whole += dims[1:] if packed else []
        param = ArrayMapping(*dims)
        states: list[Any] = []
        for k in range(i + 2, i + width):
            size = tuple(arguments[k].shape)
            same = len([d for d, n in enumerate(size[: len(shape)]) if n == shape[d]])
            kept = dims[:same] if size[: len(shape)] == shape else dims[:1]
            more = [f"s{k}_{d}" for d in range(len(size) - len(kept))]
            whole += more
            states.append(ArrayMapping(*kept, *more))
        operands += [param, param, *states]
        found += [param, *states]
    return SdyShardingRule(tuple(operands), tuple(found), need_replication_factors=tuple(whole))


def _step_shards(kind: Kind, mesh: Any, specs: list[Any], shapes: list[Any], operands: list[Any]) -> list[Any]:
    """Step the shards of one device."""
    width = 2 + len(kind.names)
    shards = [operands[i].shape for i in range(3, len(operands), width)]
    if not kind.storage.random:
        return _native(kind, operands, jnp.zeros((len(shards), 2), jnp.uint32))
    offsets = [_offsets(mesh, spec, shard) for spec, shard in zip(specs, shards, strict=True)]
    strides = [tuple(prod(shape[d + 1 :]) for d in range(len(shape))) for shape in shapes]
    if any(shard[1:] != shape[1:] for shard, shape in zip(shards, shapes, strict=True)):
        return _pure(kind, operands, list(zip(offsets, strides, strict=True)))
    with x64():
        first = [
            jnp.asarray(offset[0] if offset else 0, jnp.int64) * (stride[0] if stride else 1)
            for offset, stride in zip(offsets, strides, strict=True)
        ]
        words = jax.lax.bitcast_convert_type(jnp.stack(first), jnp.uint32)
    return _native(kind, operands, words)


def _offsets(mesh: Any, spec: Any, shard: tuple[int, ...]) -> list[Any]:
    """Return the indices, in the whole array, of the first element of this device's shard."""
    found: list[Any] = []
    for d, size in enumerate(shard):
        axes = spec[d] if d < len(spec) else None
        at = jnp.uint32(0)
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            at = at * jnp.uint32(mesh.shape[axis]) + jax.lax.axis_index(axis).astype(jnp.uint32)
        found.append(at * jnp.uint32(size))
    return found


def scalars(hyper: Hyper, count: Any, factor: Any = 1.0, seed: int | None = None, lr: Any = None) -> StepScalars:
    """Return the factors of the step after `count` steps, as 0-d arrays of float64 where they are no numbers.

    Args:
        hyper: the hyperparameters; its arrays are float64.
        count: the number of steps before this one, a 0-d array.
        factor: the factor of the gradients.
        seed: the seed of random rounding; None without it.
        lr: a learning rate that replaces that of `hyper`, a 0-d array.
    """
    with x64():
        step = jnp.asarray(count, jnp.float64) + 1
        begins = (step == 1).astype(jnp.float64)
        lr = None if lr is None else jnp.asarray(lr, jnp.float64)
        return StepScalars.of(hyper, step, factor, begins, seed, lr)


def absent(decay: DecayMode, weight_decay: Any, eps_root: Any = 0.0) -> frozenset[str]:
    """Return the names of the factors that are 0 at every step."""

    def is_zero(value: Any) -> bool:
        return not is_tensor(value) and value == 0

    found = {
        "l2": decay != "l2" or is_zero(weight_decay),
        "decay": decay in ("l2", "none") or is_zero(weight_decay),
        "eps_root": is_zero(eps_root),
    }
    return frozenset(name for name, missing in found.items() if missing)


@partial(jax.jit, static_argnums=0)
def step_each(
    hypers: tuple[Hyper, ...], arrays: list[functional.Tensors], grads: list[Any], lr: Any, count: Any
) -> list[functional.Tensors]:
    """Return parameters and moments after a step in which each has its own hyperparameters.

    Args:
        hypers: the hyperparameters of each parameter; their `lr` is not read.
        arrays: the parameters with their moments.
        grads: the gradients.
        lr: the learning rate, a 0-d array.
        count: the number of steps before this one, a 0-d array.
    """
    stepped = list(arrays)
    buckets: dict[Any, list[int]] = {}
    for i, (hyper, old, grad) in enumerate(zip(hypers, arrays, grads, strict=True)):
        buckets.setdefault((hyper, old.param.dtype, grad.dtype), []).append(i)
    for (hyper, _, _), members in buckets.items():
        names = state_names(hyper.amsgrad != "off", False)
        zero = absent(hyper.decay, hyper.weight_decay, hyper.eps_root)
        kind = Kind(Storage(), hyper.amsgrad != "off", False, hyper.cautious_decay, zero)
        states = [dict(zip(names, arrays[i][1:], strict=False)) for i in members]
        bucket = Bucket(kind, [arrays[i].param for i in members], [grads[i] for i in members], states)
        params, states = step(bucket, scalars(hyper, count, lr=lr))
        for i, param, state in zip(members, params, states, strict=True):
            stepped[i] = functional.Tensors(param, *(state[name] for name in names))
    return stepped


@partial(jax.jit, static_argnums=0)
def move_averages(hyper: Hyper, params: list[Any], averages: list[Any], count: Any) -> list[Any]:
    """Return averages, moved towards their parameters by the share that `hyper.ema_decay` leaves; at first copies."""
    share = scalars(hyper, count).average
    return [
        functional.average(jnp, ema, param.astype(ema.dtype), share.astype(ema.dtype))
        for param, ema in zip(params, averages, strict=True)
    ]


def dense(grad: Any) -> Any:
    """Return a gradient as an array of float32 or float64, with the repeated rows of a sparse array added."""
    grad = jnp.asarray(grad.todense() if hasattr(grad, "todense") else grad)
    return grad if grad.dtype in (jnp.float32, jnp.float64) else grad.astype(jnp.float32)


def update(kind: Kind, grad: Any, param: Any, moments: tuple[Any, ...], scalars: StepScalars) -> tuple[Any, ...]:
    """Return the change that a step subtracts from an array, and the new moments, by operations of XLA.

    Real and imaginary parts of complex arrays are stepped independently.

    Args:
        kind: what is known of the step; its storage is plain.
        grad: the gradient.
        param: the parameter; read only with weight decay.
        moments: both moments, and with amsgrad the maximum, in float32 or wider.
        scalars: the factors, as for `step`.
    """
    if jnp.iscomplexobj(grad):
        halves = [
            update(kind, part(grad), part(param), tuple(part(x) for x in moments), scalars)
            for part in (jnp.real, jnp.imag)
        ]
        return tuple(jax.lax.complex(first, second) for first, second in zip(*halves, strict=True))
    dtype = "float64" if moments[1].dtype == jnp.float64 else "float32"
    with x64():
        factors = {name: jnp.asarray(getattr(scalars, name), dtype) for name in NUMBERS}
    s = scalars._replace(**{**factors, **dict.fromkeys(kind.absent, 0.0)})
    old = functional.Tensors(param.astype(dtype), *(x.astype(dtype) for x in moments))
    change, new = functional.update(jnp, dtype, s, grad.astype(dtype), old)
    return (change, *new[1 : 1 + len(moments)])


def negated(change: Any) -> Any:
    """Return what is added to a parameter instead of what is subtracted from it."""
    return -change


def global_norm(grads: list[Any]) -> Any:
    """Return the global norm of all gradients as a 0-d float64 array."""
    with x64():
        return jnp.sqrt(sum((functional.square_sum(jnp, grad, "float64") for grad in grads), start=jnp.float64(0)))


def placed(state: dict[str, Any], param: Any) -> dict[str, Any]:
    """Return the arrays of a state on the devices of their parameter, sharded alike."""
    sharding = getattr(param, "sharding", None)
    if isinstance(param, Tracer) or not isinstance(sharding, NamedSharding):
        return state
    spec = tuple(sharding.spec)
    if not state.keys().isdisjoint(PACKED):
        spec = spec[:1]
    found: dict[str, Any] = {}
    for name, array in state.items():
        in_shape = array.shape[: param.ndim] == param.shape
        place = NamedSharding(sharding.mesh, PartitionSpec(*(spec if in_shape else spec[:1])))
        found[name] = jax.device_put(array, place)
    return found
