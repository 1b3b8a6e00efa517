"""The Triton kernel: float32, bfloat16 and float16 in every storage on NVIDIA GPUs, one launch for a bucket.

The code that runs on the device is in `adamas.kernels.gpu`; here is what the host does. Nothing in a step waits for the
device, and scalars may lie there, so that a graph can capture a step. Without Triton, or on another device, `refuses`
says so and `eager` takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain, compress
from operator import attrgetter, eq, is_, itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.formats.names import BITS, PACKED
from adamas.kernels.bucket import Bucket, MismatchError, Traits, state_names, tell_autograd
from adamas.kernels.capture import is_captured, keep
from adamas.kernels.counter import DeviceCounter, HostCounter, Upcoming, counter_of
from adamas.state.layout import difference, is_dense, parts, same_order

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
        return "the parameter or its gradient is a tensor subclass, or a program is being traced"
    if traits.storage.moments == "float16":
        return "float16 moments have no Triton kernel"
    if not traits.storage.plain and not traits.row_major:
        return "the parameter is not row-major, and moments or weights of fewer bits are stored in rows"
    if traits.differentiable:
        return "autograd cannot record it"
    return None


@dataclass(slots=True, eq=False, repr=False)
class Checked:
    """What was true of a bucket's tensors when they were last checked, and the table that was made of it.

    Args:
        tensors: the parameters, then those of all states, in the order of names; held, so that no other tensor takes
            the place of one in memory.
        marks: their addresses, whether they are contiguous, and their dtypes.
        shapes: theirs.
        strides: of those that are not contiguous, by their index.
        cut: of the tensors into programs.
        table: their addresses and sizes on the device.
        which: the numbers of their steps in that table.
    """

    tensors: list[Tensor]
    marks: list[Any]
    shapes: list[torch.Size]
    strides: dict[int, tuple[int, ...]]
    cut: Cut
    table: Tensor
    which: list[int] | None


@dataclass(slots=True, eq=False, repr=False)
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
        counter: of the steps; None where they are not counted.
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
    counter: HostCounter | DeviceCounter | None = None


def prepare(bucket: Bucket) -> Prepared:
    """What is kept from one step to the next: tables are made when they are first needed."""
    names = state_names(bucket.amsgrad, bucket.averages, bucket.storage)
    return Prepared(bucket, names, bucket.params[0].device, counter=counter_of(bucket))


ADDRESS, DEVICE, SHAPE = Tensor.data_ptr, Tensor.get_device, attrgetter("shape")
CONTIGUOUS, NEGATIVE, DTYPE = Tensor.is_contiguous, Tensor.is_neg, attrgetter("dtype")


def take(prepared: Prepared, grads: list[Tensor | None] | None = None) -> None:
    """Check every tensor and take the gradients, by default those in `.grad`; those in another layout are copied.

    Who has no gradient is looked at too: it is in the table, and a set of gradients that changes costs nothing.
    """
    bucket, checked = prepared.bucket, prepared.checked
    if prepared.counter is not None:
        prepared.counter.check()
    try:
        states: list[Any] = list(chain.from_iterable(map(itemgetter(*prepared.names), bucket.states)))
    except KeyError as name:
        raise MismatchError(f"{name} is missing") from None
    tensors = bucket.params + states
    if checked is None or not _are_as_they_were(tensors, checked):
        _check_all(prepared, tensors)
    _take_gradients(prepared, [param.grad for param in bucket.params] if grads is None else grads)


def _are_as_they_were(tensors: list[Tensor], checked: Checked) -> bool:
    """Whether these are the tensors that were checked, and lie in memory as they did.

    No list is made of shapes and strides: thousands of tuples would keep Python's collector busy.
    """
    return (
        len(tensors) == len(checked.tensors)
        and all(map(is_, tensors, checked.tensors))
        and _marks(tensors) == checked.marks
        and all(map(eq, map(SHAPE, tensors), checked.shapes))
        and all(tensors[i].stride() == strides for i, strides in checked.strides.items())
    )


def _marks(tensors: list[Tensor]) -> list[Any]:
    return [*map(ADDRESS, tensors), *map(CONTIGUOUS, tensors), *map(DTYPE, tensors)]


def _check_all(prepared: Prepared, tensors: list[Tensor]) -> None:
    """Check every tensor, and make the table of what is to be looked at in the next step."""
    from adamas.kernels.gpu import table

    bucket, prepared.checked, prepared.owners = prepared.bucket, None, {}
    prepared.dense = {i: copies for i in range(len(bucket.params)) if (copies := _copies(prepared, i))}
    for i in range(len(bucket.params)):
        _check(prepared, i)
    cut = table.Cut.of([tuple(param.shape) for param in bucket.params], bucket.storage)
    made = table.rows(_rows(prepared), cut, None, prepared.device)
    # What is made while a graph is captured is there once that is replayed: the next step makes its own.
    marks = [] if is_captured(prepared.device) else _marks(tensors)
    strides = {i: tensor.stride() for i, tensor in enumerate(tensors) if not tensor.is_contiguous()}
    prepared.checked = Checked(tensors, marks, list(map(SHAPE, tensors)), strides, cut, made, None)


def _copies(prepared: Prepared, i: int) -> dict[str, Tensor]:
    """Room for a parameter with gaps in memory, and for its states; nothing for others."""
    param, state = prepared.bucket.params[i], prepared.bucket.states[i]
    if not prepared.bucket.storage.plain or is_dense(tuple(param.shape), param.stride()):
        return {}
    room = torch.empty_like(param, requires_grad=False, memory_format=torch.preserve_format)
    copies = {"param": room}
    for name in prepared.names:
        if name in state and not same_order(state[name], room):
            copies[name] = torch.empty_like(room, dtype=state[name].dtype)
    return copies


def _check(prepared: Prepared, i: int) -> None:
    """Raise MismatchError unless a parameter and its states fit each other, and the bucket."""
    bucket, param, state = prepared.bucket, prepared.bucket.params[i], prepared.bucket.states[i]
    if param.device != prepared.device or param.dtype != bucket.params[0].dtype:
        raise MismatchError(f"param {i} is {param.dtype} on {param.device}, the bucket another")
    copies = prepared.dense.get(i, {})
    place = copies.get("param", param)
    in_rows = parts(bucket.storage, param)
    if in_rows and not param.is_contiguous():
        raise MismatchError(f"param {i} is not row-major")
    for name in prepared.names:
        tensor = state.get(name)
        if tensor is None:
            raise MismatchError(f"{name} {i} is missing")
        why = difference(tensor, param, in_rows.get(name), tensor if name in copies else place)
        if why is not None:
            raise MismatchError(f"{name} {i} {why}")


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
    params, checked, copied = prepared.bucket.params, _known(prepared), dict[int, Tensor]()
    given = [grad for grad in grads if grad is not None]
    shapes = compress(checked.shapes, [grad is not None for grad in grads])
    if not (
        {*map(type, given)} <= ORDINARY
        and {*map(DTYPE, given)} <= {params[0].dtype}
        and {*map(DEVICE, given)} <= {params[0].get_device()}
        and all(map(eq, map(SHAPE, given), shapes))
    ):
        raise MismatchError("a gradient is not an ordinary tensor of its parameter's dtype and shape, on its device")
    in_order = all(i >= len(params) for i in checked.strides) and all(map(CONTIGUOUS, given))
    if not in_order or any(map(NEGATIVE, given)):
        grads = list(grads)
        for i, grad in enumerate(grads):
            place = prepared.dense.get(i, {}).get("param", params[i])
            if grad is None:
                continue
            if grad.is_neg() or not same_order(grad, place):
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


def upcoming(prepared: Prepared) -> Upcoming:
    """The numbers of the steps that are due, and which of them each parameter takes."""
    assert prepared.counter is not None, "a bucket that counts"
    return prepared.counter.upcoming()


def release(prepared: Prepared) -> None:
    """Let the gradients go without a step."""
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
    if prepared.counter is not None:
        prepared.counter.advance([i for i, grad in enumerate(prepared.grads) if grad is None], scalars[0].skip)
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
    if len(prepared.grads) != len(prepared.bucket.params):
        raise MismatchError("no gradients were taken for this step")
    return _known(prepared)


def _known(prepared: Prepared) -> Checked:
    if prepared.checked is None:
        raise MismatchError("no tensors were checked for this step")
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
        cautious=scalars.cautious,
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
