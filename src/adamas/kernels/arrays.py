"""The step of NumPy's arrays in place: by the native kernel where it is built, otherwise by the pure rule.

bfloat16 arrays are those of ml_dtypes. NumPy gives no access to their memory, so the kernel reads them as 16-bit
patterns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from adamas.formats.names import Storage, state_names
from adamas.kernels import functional
from adamas.kernels.extension import missing, native
from adamas.scalars import StepScalars

Array = np.ndarray[Any, Any]
State = dict[str, Array]


class Bucket(NamedTuple):
    """Parameters of one dtype, storage and step, with their gradients and states."""

    storage: Storage
    amsgrad: bool
    averages: bool
    params: list[Array]
    grads: list[Array]
    states: list[State]


def mechanism() -> tuple[str, str]:
    """Return what steps NumPy's arrays, and the reason."""
    if native is None:
        return "numpy", f"{missing}: steps are NumPy's operations, about 10 times slower"
    return "native", f"in place, instruction set {native.isas()[0]}"


class Prepared(NamedTuple):
    """A bucket whose arrays were checked: nothing can refuse to be stepped any more."""

    bucket: Bucket
    dense: list[Array]  # the parameters, or copies of those that do not fill one block of memory
    table: Any  # the extension's table of the arrays; None where it is missing


def prepare(bucket: Bucket) -> Prepared:
    """Check every array of the bucket before anything is written.

    Raises:
        ValueError: an array cannot be stepped.
    """
    for i, param in enumerate(bucket.params):
        if not param.flags.writeable:
            raise ValueError(f"param {i} is read-only: parameters are stepped in place")
    if native is None:
        # Copies, because a gradient may share memory with a parameter that is stepped before it is read.
        return Prepared(bucket._replace(grads=list(map(np.array, bucket.grads))), bucket.params, None)
    storage = bucket.storage
    names = state_names(bucket.amsgrad, bucket.averages, storage)
    table = native.Arrays(names, storage.moments, storage.master_bits or 0, storage.stochastic)
    states = [[_readable(state[name]) for name in names] for state in bucket.states]
    try:  # as they are: looking at the layout of each array here takes longer than a small step
        table.take(list(map(_readable, bucket.params)), list(map(_readable, bucket.grads)), states)
        return Prepared(bucket, bucket.params, table)
    except native.Mismatch:
        dense = [_dense(param, storage) for param in bucket.params]
        grads = [_laid_out(grad, param) for grad, param in zip(bucket.grads, dense, strict=True)]
        table.take(list(map(_readable, dense)), grads, states)
        return Prepared(bucket, dense, table)


def apart(buckets: list[Prepared]) -> list[Prepared]:
    """Return the buckets of one step, with copies of gradients that share memory with arrays that the step writes."""
    found: list[Prepared] = []
    for prepared in buckets:
        tables = [other.table for other in buckets]
        shared = {} if prepared.table is None else {i for table in tables for i in prepared.table.aliased(table)}
        if shared:
            grads = [np.array(grad) if i in shared else grad for i, grad in enumerate(prepared.bucket.grads)]
            prepared = prepare(prepared.bucket._replace(grads=grads))
        found.append(prepared)
    return found


def squares(prepared: Prepared) -> list[float]:
    """Return each gradient's sum of squares in float64."""
    if prepared.table is None:
        return [float(functional.square_sum(np, grad, "float64")) for grad in prepared.bucket.grads]
    return prepared.table.squares()


def step(prepared: Prepared, scalars: StepScalars) -> None:
    """Step every parameter of the bucket and its state in place."""
    bucket, dense, table = prepared
    if table is None:
        return _step_in_numpy(bucket, scalars)
    table.step(scalars)
    for param, copy in zip(bucket.params, dense, strict=True):
        if copy is not param:
            param[...] = copy


def _step_in_numpy(bucket: Bucket, scalars: StepScalars) -> None:
    for param, grad, state in zip(bucket.params, bucket.grads, bucket.states, strict=True):
        index = np.arange(param.size).reshape(param.shape) if bucket.storage.random else param
        new = functional.step(np, bucket.storage, scalars, grad, param, state, index)
        param[...] = new["param"]
        for name, array in state.items():
            array[...] = new[name]


def _readable(array: Array) -> Array:
    """Return an array whose memory the kernel can read: of bfloat16 the view of its patterns."""
    return array.view(np.uint16) if array.dtype.kind == "V" else array


def _dense(param: Array, storage: Storage) -> Array:
    """Return a parameter that fills one block of memory, row-major where its storage needs it, or else a copy."""
    flags = param.flags
    in_order = flags.c_contiguous or (flags.f_contiguous and storage.plain)
    return param if in_order and flags.aligned else np.array(param, order="C")


def _laid_out(grad: Array, param: Array) -> Array:
    """Return a gradient in the dtype and memory order of its parameter."""
    if grad.dtype != param.dtype or grad.strides != param.strides or not grad.flags.aligned:
        laid_out = np.empty_like(param)
        laid_out[...] = grad
        grad = laid_out
    return _readable(grad)
