"""The Triton kernel: float32, bfloat16 and float16 in every storage on NVIDIA GPUs, one launch for a bucket.

The code that runs on the device is in `adamas.kernels.gpu`; here is what the host does. Nothing in a step waits for the
device, and scalars may lie there, so that a graph can capture a step. Without Triton, or on another device, `refuses`
says so and `eager` takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.formats.names import BITS, PACKED
from adamas.kernels.bucket import Bucket, MismatchError, Traits, is_dense, moment_dtype, state_names, tell_autograd
from adamas.kernels.capture import is_captured, keep

if TYPE_CHECKING:
    from adamas.kernels.gpu.factors import Factors
    from adamas.kernels.gpu.step import Options, Tables
    from adamas.kernels.gpu.table import Cut
    from adamas.scalars import StepScalars

NAME = "triton"
# As few as hold a block without spilling: the more warps fit, the better one's arithmetic hides another's memory.
REGISTERS = {"wide": 128, "bfloat16": 128, "packed16": 96, "packed12": 144}
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
ORDINARY = {Tensor, torch.nn.Parameter}
OLDEST = (3, 6)  # older ones flush subnormals in roots and divisions
OLDEST_DEVICE = (8, 0)  # compute capability: bfloat16 and reductions of a warp


@cache
def missing() -> str | None:
    """Why this installation has no Triton to use; None if it has."""
    found = next((name for name in ("triton", "pytorch-triton", "triton-windows") if _version(name)), None)
    if found is None:
        return "Triton is not installed"
    text = _version(found) or ""
    if tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) < OLDEST:
        return f"Triton {text} is older than {'.'.join(map(str, OLDEST))}"
    return None


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, as TRITON_INTERPRET=1 makes it: for tests, with the same bits."""
    from adamas.kernels.gpu.step import step

    return type(step).__name__ == "InterpretedFunction"


@cache
def unfit_device() -> str | None:
    """Why the GPUs of this machine are not for these kernels; None if they are."""
    if torch.version.cuda is None:
        return "this torch was not built for NVIDIA GPUs"
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if capability < OLDEST_DEVICE:
            name = torch.cuda.get_device_name(index)
            return f"{name} has compute capability {capability[0]}.{capability[1]}, below 8.0"
    try:
        from triton.runtime import driver

        _ = driver.active.utils  # pyright: ignore - which a C compiler makes, as it does launchers
    except Exception as error:
        return f"Triton cannot launch here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return None


def refuses(traits: Traits) -> str | None:
    """Why this kernel cannot step such a parameter; None if it can."""
    if missing() is not None:
        return missing()
    if traits.device != "cuda" and not (traits.device == "cpu" and interpreted()):
        return f"the parameter is on {traits.device}, and triton is for NVIDIA GPUs"
    if traits.device == "cuda" and unfit_device() is not None:
        return unfit_device()
    if traits.dtype not in DTYPES:
        return f"{traits.dtype} has no Triton kernel"
    if traits.grad_dtype != traits.dtype:
        return f"the gradient is {traits.grad_dtype}, the parameter {traits.dtype}"
    if not traits.plain:
        return "the parameter or its gradient is a tensor subclass"
    if traits.storage.moments == "float16":
        return "float16 moments have no Triton kernel"
    if not traits.storage.plain and not traits.row_major:
        return "the parameter is not row-major, and moments or weights of fewer bits are stored in rows"
    if traits.differentiable:
        return "autograd cannot record it"
    return None


@dataclass(slots=True)
class Checked:
    """What was true of a bucket's tensors when they were last checked, and the table that was made of it.

    Args:
        states: the tensors of all states, in the order of names.
        marks: of parameters and states: see `_marks`.
        cut: of the tensors into programs.
        table: their addresses and sizes on the device.
        which: the numbers of their steps in that table.
    """

    states: list[Any]
    marks: list[int]
    cut: Cut
    table: Tensor
    which: list[int] | None


@dataclass(slots=True)
class Prepared:
    """A bucket, its tables on the device and, until the step is done, its gradients.

    Args:
        bucket: the bucket.
        names: of the states that a step needs.
        device: of all tensors.
        dense: of parameters with gaps in memory, by index, copies of them and of their states without: stepped in
            their place and copied back.
        checked: None before the first check.
        owners: the tensor of each program, for steps and for norms.
        grads: the gradients of the coming step, as the kernel reads them.
        addresses: theirs, 0 where there is none.
        copied: the index of each one that is a copy -> the original.
        pointers: the addresses of gradients on the device, and on the host.
    """

    bucket: Bucket
    names: tuple[str, ...]
    device: torch.device
    dense: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    checked: Checked | None = None
    owners: dict[str, Tensor] = field(default_factory=dict)
    grads: list[Tensor | None] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    copied: dict[int, Tensor] = field(default_factory=dict)
    pointers: tuple[Tensor, list[int]] | None = None


def prepare(bucket: Bucket) -> Prepared:
    """What is kept from one step to the next: tables are made when they are first needed."""
    names = state_names(bucket.amsgrad, bucket.averages, bucket.storage)
    return Prepared(bucket, names, bucket.params[0].device)


ADDRESS, COUNT, DEVICE = Tensor.data_ptr, Tensor.numel, Tensor.get_device
CONTIGUOUS, NEGATIVE, DTYPE = Tensor.is_contiguous, Tensor.is_neg, attrgetter("dtype")


def take(prepared: Prepared, grads: list[Tensor | None]) -> None:
    """Check every tensor and take the gradients; those laid out otherwise than their parameter are copied.

    Who has no gradient is looked at too: it is in the table, and a set of gradients that changes costs nothing.
    """
    bucket, checked = prepared.bucket, prepared.checked
    try:
        states: list[Any] = list(chain.from_iterable(map(itemgetter(*prepared.names), bucket.states)))
    except KeyError as name:
        raise MismatchError(f"{name} is missing") from None
    marks = _marks(bucket.params, states)
    if not (
        checked is not None
        and len(checked.states) == len(states)
        and all(map(is_, states, checked.states))
        and marks == checked.marks
    ):
        _check_all(prepared, states, marks)
    _take_gradients(prepared, grads)


def _marks(params: list[Tensor], states: list[Tensor]) -> list[int]:
    """What shows that tensors are where they were: numbers, since a thousand shapes would keep the collector busy."""
    return [*map(ADDRESS, params), *map(ADDRESS, states), *map(COUNT, params)]


def _check_all(prepared: Prepared, states: list[Any], marks: list[int]) -> None:
    """Check every tensor, and make the table of what is to be looked at in the next step."""
    from adamas.kernels.gpu import table

    bucket, prepared.checked, prepared.owners = prepared.bucket, None, {}
    prepared.dense = {i: copies for i in range(len(bucket.params)) if (copies := _copies(prepared, i))}
    for i in range(len(bucket.params)):
        _check(prepared, i)
    cut = table.Cut.of([tuple(param.shape) for param in bucket.params], bucket.storage)
    made = table.rows(_rows(prepared), cut, None, prepared.device)
    # What is made while a graph is captured is there once that is replayed: the next step makes its own.
    prepared.checked = Checked(states, [] if is_captured(prepared.device) else marks, cut, made, None)


def _copies(prepared: Prepared, i: int) -> dict[str, Tensor]:
    """Room for a parameter with gaps in memory, and for its states; nothing for others."""
    param, state = prepared.bucket.params[i], prepared.bucket.states[i]
    if not prepared.bucket.storage.plain or is_dense(tuple(param.shape), param.stride()):
        return {}
    room = torch.empty_like(param, requires_grad=False, memory_format=torch.preserve_format)
    copies = {"param": room}
    for name in prepared.names:
        if name in state and not _same_order(state[name], room):
            copies[name] = torch.empty_like(room, dtype=state[name].dtype)
    return copies


def _check(prepared: Prepared, i: int) -> None:
    """Raise MismatchError unless a parameter and its states fit each other, and the bucket."""
    bucket, param, state = prepared.bucket, prepared.bucket.params[i], prepared.bucket.states[i]
    if param.device != prepared.device or param.dtype != bucket.params[0].dtype:
        raise MismatchError(f"param {i} is {param.dtype} on {param.device}, the bucket another")
    copies = prepared.dense.get(i, {})
    place = copies.get("param", param)
    parts: dict[str, Any] = {}
    if not bucket.storage.plain:
        from adamas.kernels import stored

        parts = stored.parts(bucket.storage, param)
        if not param.is_contiguous():
            raise MismatchError(f"param {i} is not row-major")
    for name in prepared.names:
        tensor = state.get(name)
        if tensor is None:
            raise MismatchError(f"{name} {i} is missing")
        dtype, shape = parts.get(name, (moment_dtype(param), tuple(param.shape)))
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape) or tensor.device != param.device:
            raise MismatchError(f"{name} {i} does not fit a parameter of shape {tuple(param.shape)}")
        in_order = tensor.is_contiguous() if name in parts else name in copies or _same_order(tensor, place)
        if not in_order or (name in parts and tensor.data_ptr() % 2):
            raise MismatchError(f"{name} {i} is laid out otherwise than its parameter")


def _same_order(a: Tensor, b: Tensor) -> bool:
    """Whether element k of one lies where element k of the other does: equal strides, where they count."""
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return a.numel() == 0 or all(size == 1 or mine == other for size, mine, other in strides)


def _rows(prepared: Prepared) -> list[list[int]]:
    """The addresses of each parameter and of the states that `table.NAMES` names; 0 for what there is not."""
    from adamas.kernels.gpu.table import NAMES

    bucket, rows = prepared.bucket, list[list[int]]()
    for i, param in enumerate(bucket.params):
        copies, found = prepared.dense.get(i, {}), dict[str, int]()
        for name in prepared.names:
            tensor: Tensor = copies[name] if name in copies else bucket.states[i][name]
            found["exp_avg" if name in PACKED else name] = tensor.data_ptr()
        rows.append([copies.get("param", param).data_ptr(), *(found.get(name, 0) for name in NAMES)])
    return rows


def _take_gradients(prepared: Prepared, grads: list[Tensor | None]) -> None:
    """Take gradients that fit, or copies of them that do."""
    params, copied = prepared.bucket.params, dict[int, Tensor]()
    given = [grad for grad in grads if grad is not None]
    owners = params
    if len(given) < len(params):
        owners = [param for param, grad in zip(params, grads, strict=True) if grad is not None]
    if not (
        {*map(type, given)} <= ORDINARY
        and {*map(DTYPE, given)} <= {params[0].dtype}
        and {*map(DEVICE, given)} <= {params[0].get_device()}
        and list(map(COUNT, given)) == list(map(COUNT, owners))
    ):
        raise MismatchError("a gradient is not an ordinary tensor of its parameter's dtype and shape, on its device")
    if not (all(map(CONTIGUOUS, given)) and all(map(CONTIGUOUS, owners))) or any(map(NEGATIVE, given)):
        grads = list(grads)
        for i, grad in enumerate(grads):
            place = prepared.dense.get(i, {}).get("param", params[i])
            if grad is None:
                continue
            if grad.shape != place.shape:
                raise MismatchError(f"grad {i} is {tuple(grad.shape)}, its parameter {tuple(place.shape)}")
            if grad.is_neg() or not _same_order(grad, place):
                copied[i] = grad
                grads[i] = torch.empty_like(place, requires_grad=False).copy_(grad.detach())
    prepared.grads, prepared.copied = grads, copied
    prepared.addresses = [0 if grad is None else ADDRESS(grad) for grad in grads]


def squares(prepared: Prepared) -> list[Tensor]:
    """The sums of the squares of all gradients, in pieces: a float64 tensor on the device."""
    from adamas.kernels.gpu import norm

    tables, programs = _tables(prepared, "norm", None)
    sums = torch.empty(programs, dtype=torch.float64, device=prepared.device)
    _launch(norm.squares, programs, prepared.device, (tables, sums, _word(prepared.bucket)), {"num_warps": 8})
    return [sums]


def release(prepared: Prepared) -> None:
    """Let the gradients go."""
    prepared.grads, prepared.copied = [], {}


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor of a bucket whose gradient was taken, in one launch.

    A scalar may be a 0-d tensor, or one with an element for each tensor of the bucket.
    """
    from adamas.kernels.gpu import factors
    from adamas.kernels.gpu.step import step as kernel

    bucket = prepared.bucket
    given = factors.gather(scalars, which, len(bucket.params), prepared.device)
    tables, programs = _tables(prepared, "step", given.which)
    dense = {i: room for i, room in prepared.dense.items() if prepared.grads[i] is not None or bucket.averages}
    for i, room in dense.items():
        for name, copy in room.items():
            copy.copy_(_tensor(bucket, i, name))
    skip = tables.owners if scalars[0].skip is None else scalars[0].skip
    cut = _checked(prepared).cut
    options = _options(bucket, scalars[0], given, zero_grad, cut.huge())
    arguments = (tables, cut.each, skip, given.scalars, *given.key, options)
    _launch(
        kernel, programs, prepared.device, arguments, {"num_warps": 1, "maxnreg": REGISTERS[bucket.storage.moments]}
    )
    for i, room in dense.items():
        for name, copy in room.items():
            _tensor(bucket, i, name).copy_(copy)
    if zero_grad:
        for original in prepared.copied.values():
            original.detach().zero_()
    tell_autograd(_written(prepared, zero_grad))
    release(prepared)


def _tensor(bucket: Bucket, i: int, name: str) -> Tensor:
    return bucket.params[i].detach() if name == "param" else bucket.states[i][name]


def _tables(prepared: Prepared, what: str, which: list[int] | None) -> tuple[Tables, int]:
    """The tables for a launch, most of which lie on the device already, and how many programs it has."""
    from adamas.kernels.gpu import table
    from adamas.kernels.gpu.step import Tables

    checked, device = _checked(prepared), prepared.device
    rows, owners, pointers = (checked.table, checked.which), prepared.owners, prepared.pointers
    if which is not None and checked.which != which:
        rows = (table.rows(_rows(prepared), checked.cut, which, device), which)
    programs = checked.cut.programs() if what == "step" else checked.cut.tiles()
    if what not in owners:
        owners = {**owners, what: table.owners(programs, device)}
    if pointers is None or pointers[1] != prepared.addresses:
        pointers = (table.upload(prepared.addresses, device), prepared.addresses)
    tables = Tables(rows[0], pointers[0], owners[what])
    if is_captured(device):  # what the graph makes is the graph's alone
        keep((tables, prepared.dense), device)
    else:
        (checked.table, checked.which), prepared.owners, prepared.pointers = rows, owners, pointers
    return tables, sum(programs)


def _checked(prepared: Prepared) -> Checked:
    if prepared.checked is None or len(prepared.grads) != len(prepared.bucket.params):
        raise MismatchError("no gradients were taken for this step")
    return prepared.checked


def _word(bucket: Bucket) -> Any:
    """As what a parameter is loaded and stored, and whether these are bfloat16's patterns."""
    import triton.language as tl

    from adamas.kernels.gpu.layout import Word

    dtype = bucket.params[0].dtype
    words = {torch.float32: tl.float32, torch.bfloat16: tl.int16, torch.float16: tl.float16}
    return Word(DTYPES[dtype], words[dtype])


def _options(bucket: Bucket, scalars: StepScalars, given: Factors, zero_grad: bool, huge: bool) -> Options:
    """What the kernel is compiled for."""
    from adamas.kernels.gpu.step import Options

    storage = bucket.storage
    v_bits, m_bits = BITS.get(storage.moments, (0, 0))
    return Options(
        *_word(bucket),
        moments=storage.moments,
        v_bits=v_bits,
        m_bits=m_bits,
        master_bits=storage.master_bits or 0,
        stochastic=storage.stochastic,
        amsgrad=bucket.amsgrad,
        averages=bucket.averages,
        scaled=given.scaled,
        l2=given.l2,
        decoupled=given.decoupled,
        usual=given.usual,
        moves=scalars.moves,
        zero_grad=zero_grad,
        may_skip=scalars.skip is not None,
        random=storage.random,
        where=given.where,
        where_key=given.where_key,
        huge=huge,
    )


def _launch(
    kernel: Any, programs: int, device: torch.device, arguments: tuple[Any, ...], options: dict[str, int]
) -> None:
    """Launch on the device's current stream, without fused multiply-add: see `gpu.rule`."""
    if not programs:
        return
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)
    else:
        kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)


def _written(prepared: Prepared, zero_grad: bool) -> list[Tensor]:
    """The tensors of which autograd may have kept some, and that the step changed."""
    grads, written = prepared.grads, prepared.bucket.params
    if 0 in prepared.addresses:
        written = [param for param, grad in zip(written, grads, strict=True) if grad is not None]
    return written + [grad for grad in grads if grad is not None] if zero_grad else written
