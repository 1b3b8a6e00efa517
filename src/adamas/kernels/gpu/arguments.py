"""The arguments of a launch: `StepScalars` as numbers or addresses, and the options to compile for."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from ctypes import c_float
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.formats.names import BITS
from adamas.kernels.bucket import Bucket
from adamas.kernels.gpu.table import upload
from adamas.scalars import StepScalars

NUMBER, FOR_ALL, FOR_EACH = 0, 1, 2  # where a scalar is: see `rule.scalar`
TINY = torch.finfo(torch.float32).tiny


# The numbers of `StepScalars`, rounded to float32, or float64 tensors. `average_keep` is 1 - average, rounded once.
NUMBERS = StepScalars._fields[: StepScalars._fields.index("amsgrad")]
Scalars = namedtuple("Scalars", (*NUMBERS, "average_keep"))  # pyright: ignore[reportUntypedNamedTuple]


class Tables(NamedTuple):
    """Tensors on the device that are the same for many steps."""

    rows: Any  # addresses and sizes of each tensor, int64: see `layout`
    grads: Any  # the addresses of the gradients, 0 for a missing one, int64
    owners: Any  # the tensor of each program, int32


class Word(NamedTuple):
    """The dtype of parameters and gradients."""

    param: str  # "float32", "bfloat16" or "float16"
    word: Any  # Triton's dtype for loads and stores: int16 for the patterns of bfloat16


class Options(NamedTuple):
    """The options that a kernel is compiled for."""

    param: str  # see `Word`
    word: Any  # see `Word`
    moments: str  # as in `adamas.formats.names.Storage`
    v_bits: int  # bits of packed second moments; 0 where they are not packed
    m_bits: int  # bits of packed first moments; 0 where they are not packed
    master_bits: int  # 0 without master weights
    stochastic: bool  # weights are rounded stochastically
    random: bool  # random bits are drawn
    amsgrad: bool  # running maxima are kept
    averages: bool  # averages of the weights are kept
    cautious: bool  # decoupled decay is 0 where update and weight have opposite signs
    moves: bool  # parameters may change
    may_skip: bool  # a tensor tells whether the step changes nothing
    zero_grad: bool  # gradients are zeroed
    huge: bool  # a parameter has 2**32 elements or more
    sharded: bool  # tensors are shards of their parameters
    scaled: bool  # grad_factor may differ from 1
    l2: bool  # there may be coupled weight decay
    decoupled: bool  # there may be decoupled weight decay
    simple: bool  # beta1 >= 1/2 and eps_root = 0: the same bits with three operations fewer
    where: Scalars  # NUMBER, FOR_ALL or FOR_EACH for each scalar
    where_key: int  # NUMBER, FOR_ALL or FOR_EACH for the key of random bits


class Given(NamedTuple):
    """The arguments of a step's launch that depend on its scalars."""

    scalars: Scalars
    key: tuple[Any, Any]  # the key of random bits: int32 numbers, or int64 tensors
    which: list[int] | None  # the number of each tensor's step; None where there is one step
    options: Options


def gather(
    bucket: Bucket, steps: list[StepScalars], which: list[int] | None, zero_grad: bool = False, huge: bool = False
) -> Given:
    """Return the arguments for the different steps of a bucket.

    Args:
        bucket: the tensors; a scalar with as many elements has one for each tensor.
        steps: the different steps.
        which: the number of each tensor's step; None where there is one step.
        zero_grad: whether gradients are zeroed.
        huge: whether a parameter has 2**32 elements or more.
    """
    storage, device = bucket.storage, bucket.params[0].device
    found = {name: _gathered([_value(step, name) for step in steps], name, device) for name in Scalars._fields}
    keys = [_gathered([step.random[i] if step.random else 0 for step in steps], "key", device) for i in range(2)]
    where = Scalars(*(place for _, place in found.values()))
    if which is None and FOR_EACH in (*where, keys[0][1]):
        which = list(range(len(bucket.params)))
    v_bits, m_bits = BITS.get(storage.moments, (0, 0))
    options = Options(
        *word_of(bucket),
        moments=storage.moments,
        v_bits=v_bits,
        m_bits=m_bits,
        master_bits=storage.master_bits or 0,
        stochastic=storage.stochastic,
        random=storage.random,
        amsgrad=bucket.amsgrad,
        averages=bucket.averages,
        cautious=steps[0].cautious,
        moves=steps[0].moves,
        may_skip=steps[0].skip is not None,
        zero_grad=zero_grad,
        huge=huge,
        sharded=bucket.places is not None,
        scaled=any(_may_differ(step.grad_factor, 1) for step in steps),
        l2=any(_may_differ(step.l2, 0) for step in steps),
        decoupled=any(_may_differ(step.decay, 0) for step in steps),
        simple=all(_is_simple(step) for step in steps),
        where=where,
        where_key=keys[0][1],
    )
    return Given(Scalars(*(value for value, _ in found.values())), (keys[0][0], keys[1][0]), which, options)


def word_of(bucket: Bucket) -> Word:
    """Return the dtype of a bucket's parameters and gradients."""
    import triton.language as tl

    name = str(bucket.params[0].dtype).removeprefix("torch.")
    return Word(name, getattr(tl, "int16" if name == "bfloat16" else name))


def _may_differ(scalar: Any, number: float) -> bool:
    return isinstance(scalar, Tensor) or scalar != number


def _is_simple(step: StepScalars) -> bool:
    large_beta1 = not isinstance(step.beta1, Tensor) and _float32(step.beta1) >= 0.5
    return large_beta1 and not _may_differ(step.eps_root, 0)


def _value(step: StepScalars, name: str) -> Any:
    return 1 - step.average if name == "average_keep" else getattr(step, name)


def _gathered(values: list[Any], name: str, device: torch.device) -> tuple[Any, int]:
    """Return one scalar of all steps, and where it is."""
    first, dtype = values[0], torch.int64 if name == "key" else torch.float64
    if isinstance(first, Tensor):  # a bucket whose steps are counted on the device has one StepScalars for all tensors
        tensor = first.detach().to(device=device, dtype=dtype, non_blocking=True).reshape(-1)
        return tensor, FOR_ALL if tensor.numel() == 1 else FOR_EACH
    if all(value == first for value in values):
        return ROUND.get(name, _float32)(first), NUMBER
    return upload(values, device, dtype), FOR_EACH


def _float32(x: float) -> float:
    return c_float(x).value


# eps > 0 must not round to 0, and the numbers of a key are passed as int32.
ROUND: dict[str, Callable[[Any], Any]] = {
    "eps": lambda x: max(_float32(x), TINY) if x > 0 else 0.0,
    "key": lambda x: x - 2**32 if x >= 2**31 else x,
}
