"""The Triton kernel: float32, bfloat16 and float16 in every storage on NVIDIA GPUs, one launch for a bucket.

The code that runs on the device is in `adamas.kernels.gpu`; this module is the host's part. Nothing in a step waits for
the device, and scalars may lie there, so that a graph can capture a step. Without Triton, or on another device,
`refuses` says so and `eager` steps instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, compress
from operator import attrgetter, eq, is_, itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.formats.names import PACKED
from adamas.kernels.bucket import Bucket, MismatchError, Traits, shared_refusal, state_names, tell_autograd
from adamas.kernels.capture import is_captured, keep
from adamas.kernels.counter import DeviceCounter, HostCounter, Upcoming, counter_of
from adamas.kernels.gpu import table
from adamas.kernels.gpu.arguments import Tables, gather, word_of
from adamas.kernels.gpu.table import Cut
from adamas.state.layout import difference, is_dense, parts, same_order

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NAME = "triton"
# Registers of a thread: as few as hold a block without spilling, since more warps then hide the latency of memory.
REGISTERS = {"wide": 128, "bfloat16": 128, "packed16": 96, "packed12": 144}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ORDINARY = {Tensor, torch.nn.Parameter}
OLDEST = (3, 6)  # older versions of Triton flush subnormals in roots and divisions
OLDEST_DEVICE = (8, 0)  # the compute capability that has bfloat16 and reductions of a warp


@cache
def missing() -> str | None:
    """Return why this installation has no usable Triton; None if it has one."""
    for package in ("triton", "pytorch-triton", "triton-windows"):
        try:
            text = version(package)
        except PackageNotFoundError:
            continue
        if tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) < OLDEST:
            return f"Triton {text} is older than {'.'.join(map(str, OLDEST))}"
        return None
    return "Triton is not installed"


@cache
def interpreted() -> bool:
    """Return whether TRITON_INTERPRET=1 makes Triton run its kernels on the CPU: for tests, with the same bits."""
    from adamas.kernels.gpu.step import step

    return type(step).__name__ == "InterpretedFunction"


@cache
def unfit_device() -> str | None:
    """Return why the GPUs of this machine cannot run these kernels; None if they can."""
    if torch.version.cuda is None:
        return "this torch was not built for NVIDIA GPUs"
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if capability < OLDEST_DEVICE:
            name = torch.cuda.get_device_name(index)
            return f"{name} has compute capability {capability[0]}.{capability[1]}, below 8.0"
    try:
        from triton.runtime import driver

        _ = driver.active.utils  # pyright: ignore - needs a C compiler, as launchers do
    except Exception as error:
        return f"Triton cannot launch here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return None


def refuses(traits: Traits) -> str | None:
    """Return why this kernel cannot step such a parameter; None if it can."""
    if missing() is not None:
        return missing()
    if traits.device != "cuda" and not (traits.device == "cpu" and interpreted()):
        return f"the parameter is on {traits.device}, and triton is for NVIDIA GPUs"
    if traits.device == "cuda" and unfit_device() is not None:
        return unfit_device()
    reason = shared_refusal(traits, "Triton", DTYPES)
    return "autograd cannot record it" if reason is None and traits.differentiable else reason


@dataclass(slots=True, eq=False, repr=False)
class Checked:
    """The properties of a bucket's tensors when they were last checked, and the table made from them."""

    tensors: list[Tensor]  # the parameters, then all states by name; held, so that their memory is not reused
    marks: list[Any]  # of each tensor the address, whether it is contiguous, and the dtype
    shapes: list[torch.Size]
    strides: dict[int, tuple[int, ...]]  # index -> the strides of a tensor that is not contiguous
    cut: Cut  # how the tensors are cut into programs
    table: Tensor  # addresses and sizes on the device
    which: list[int] | None  # the numbers of the tensors' steps in that table


@dataclass(slots=True, eq=False, repr=False)
class Prepared:
    """A bucket, its tables on the device and, until the step is done, its gradients."""

    bucket: Bucket
    names: tuple[str, ...]  # the names of the states that a step needs
    device: torch.device  # the device of all tensors
    counter: HostCounter | DeviceCounter | None  # None where steps are not counted
    # index -> dense copies of a parameter with gaps in memory and of its states; the step uses and copies them back
    dense: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    checked: Checked | None = None  # None before the first check
    owners: dict[str, Tensor] = field(default_factory=dict)  # the tensor of each program, for "step" and for "norm"
    grads: list[Tensor | None] = field(default_factory=list)  # the gradients that the kernel reads
    addresses: list[int] = field(default_factory=list)  # the addresses of the gradients; 0 for a missing one
    copied: dict[int, Tensor] = field(default_factory=dict)  # index -> the original of a gradient that is a copy
    pointers: tuple[Tensor, list[int]] | None = None  # the addresses of gradients on the device, and on the host


def prepare(bucket: Bucket) -> Prepared:
    """Make what stays the same from step to step; tables are made when they are first needed."""
    names = state_names(bucket.amsgrad, bucket.averages, bucket.storage)
    return Prepared(bucket, names, bucket.params[0].device, counter_of(bucket))


ADDRESS, DEVICE, SHAPE = Tensor.data_ptr, Tensor.get_device, attrgetter("shape")
CONTIGUOUS, NEGATIVE, DTYPE = Tensor.is_contiguous, Tensor.is_neg, attrgetter("dtype")


def take(prepared: Prepared, grads: list[Tensor | None] | None = None) -> None:
    """Check every tensor and take the gradients, by default those in `.grad`.

    A gradient with another layout than its parameter is copied. Parameters without a gradient are checked too, since
    they are in the table: so a change of the set of gradients needs no new table.
    """
    bucket, checked = prepared.bucket, prepared.checked
    if prepared.counter is not None:
        prepared.counter.check()
    try:
        states: list[Any] = list(chain.from_iterable(map(itemgetter(*prepared.names), bucket.states)))
    except KeyError as name:
        raise MismatchError(f"{name} is missing") from None
    tensors = bucket.params + states
    if checked is None or not _is_unchanged(tensors, checked):
        checked = _check_all(prepared, tensors)
    _take_gradients(prepared, checked, [param.grad for param in bucket.params] if grads is None else grads)


def _is_unchanged(tensors: list[Tensor], checked: Checked) -> bool:
    """Return whether these are the checked tensors, with the same memory and layout.

    No lists of shapes and strides are made: thousands of tuples would keep Python's garbage collector busy.
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


def _check_all(prepared: Prepared, tensors: list[Tensor]) -> Checked:
    """Check every tensor, and record the properties that the next step compares."""
    bucket, prepared.checked, prepared.owners = prepared.bucket, None, {}
    prepared.dense = {i: copies for i in range(len(bucket.params)) if (copies := _copies(prepared, i))}
    for i in range(len(bucket.params)):
        _check(prepared, i)
    cut = Cut.of([tuple(param.shape) for param in bucket.params], bucket.storage, bucket.places)
    made = table.rows(_rows(prepared), cut, None, prepared.device)
    # A table made while a graph is captured is filled when the graph is replayed: the next step makes its own.
    marks = [] if is_captured(prepared.device) else _marks(tensors)
    strides = {i: tensor.stride() for i, tensor in enumerate(tensors) if not tensor.is_contiguous()}
    prepared.checked = Checked(tensors, marks, list(map(SHAPE, tensors)), strides, cut, made, None)
    return prepared.checked


def _copies(prepared: Prepared, i: int) -> dict[str, Tensor]:
    """Return dense memory for a parameter with gaps and for its states; nothing for a dense parameter."""
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
    """Raise MismatchError unless a parameter and its states fit each other and the bucket."""
    bucket, param, state = prepared.bucket, prepared.bucket.params[i], prepared.bucket.states[i]
    dtype = bucket.params[0].dtype
    if param.device != prepared.device or param.dtype != dtype:
        raise MismatchError(f"param {i} is {param.dtype} on {param.device}, its bucket {dtype} on {prepared.device}")
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
    """Return the addresses of each parameter and of its states, in the order of `table.NAMES`; 0 for a missing one."""
    bucket, rows = prepared.bucket, list[list[int]]()
    for i, param in enumerate(bucket.params):
        copies, found = prepared.dense.get(i, {}), dict[str, int]()
        for name in prepared.names:
            tensor: Tensor = copies[name] if name in copies else bucket.states[i][name]
            found["exp_avg" if name in PACKED else name] = tensor.data_ptr()
        rows.append([copies.get("param", param).data_ptr(), *(found.get(name, 0) for name in table.NAMES)])
    return rows


def _take_gradients(prepared: Prepared, checked: Checked, grads: list[Tensor | None]) -> None:
    """Take the gradients, with a copy in the parameter's layout for each that has another one."""
    params, copied = prepared.bucket.params, dict[int, Tensor]()
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
    """Return the sums of the squares of tiles of the gradients: one float64 tensor on the device."""
    from adamas.kernels.gpu.norm import squares as kernel

    tables, programs = _tables(prepared, "norm", None)
    sums = torch.empty(programs, dtype=torch.float64, device=prepared.device)
    _launch(kernel, programs, prepared.device, (tables, sums, word_of(prepared.bucket)), {"num_warps": 8})
    return [sums]


def upcoming(prepared: Prepared) -> Upcoming:
    """Return the numbers of the coming steps, and for each parameter the index of its own."""
    assert prepared.counter is not None, "a bucket that counts"
    return prepared.counter.upcoming()


def release(prepared: Prepared) -> None:
    """Drop the gradients without a step."""
    prepared.grads, prepared.copied = [], {}


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor of a bucket whose gradient was taken, in one launch.

    A scalar may be a 0-d tensor, or a tensor with an element for each tensor of the bucket.
    """
    from adamas.kernels.gpu.step import step as kernel

    bucket, skip = prepared.bucket, scalars[0].skip
    cut = _checked(prepared).cut
    given = gather(bucket, scalars, which, zero_grad, cut.huge())
    tables, programs = _tables(prepared, "step", given.which)
    dense = {i: room for i, room in prepared.dense.items() if prepared.grads[i] is not None or bucket.averages}
    for i, room in dense.items():
        for name, copy in room.items():
            copy.copy_(_tensor(bucket, i, name))
    arguments = (tables, cut.each, tables.owners if skip is None else skip, given.scalars, *given.key, given.options)
    launch = {"num_warps": 1, "maxnreg": REGISTERS[bucket.storage.moments]}
    _launch(kernel, programs, prepared.device, arguments, launch)
    for i, room in dense.items():
        for name, copy in room.items():
            _tensor(bucket, i, name).copy_(copy)
    if zero_grad:
        for original in prepared.copied.values():
            original.detach().zero_()
    absent = [i for i, grad in enumerate(prepared.grads) if grad is None]
    tell_autograd(bucket.params, absent, prepared.grads if zero_grad else [])
    if prepared.counter is not None:
        prepared.counter.advance(absent, skip)
    release(prepared)


def _tensor(bucket: Bucket, i: int, name: str) -> Tensor:
    return bucket.params[i].detach() if name == "param" else bucket.states[i][name]


def _tables(prepared: Prepared, what: str, which: list[int] | None) -> tuple[Tables, int]:
    """Return the tables for a launch, most of which lie on the device already, and its number of programs."""
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
    if is_captured(device):  # tables made during a capture belong to the graph alone
        keep((tables, prepared.dense), device)
    else:
        (checked.table, checked.which), prepared.owners, prepared.pointers = rows, owners, pointers
    return tables, sum(programs)


def _checked(prepared: Prepared) -> Checked:
    if prepared.checked is None or len(prepared.grads) != len(prepared.bucket.params):
        raise MismatchError("no gradients were taken for this step")
    return prepared.checked


def _launch(
    kernel: Any, programs: int, device: torch.device, arguments: tuple[Any, ...], options: dict[str, int]
) -> None:
    """Launch on the device's current stream, without contraction to fused multiply-add: see `gpu.rule`."""
    if not programs:
        return
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)
    else:
        kernel[(programs,)](*arguments, enable_fp_fusion=False, **options)
