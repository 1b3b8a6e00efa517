"""The plan of a step: the buckets of parameters that a kernel steps together. It is kept until something changes.

A bucket holds parameters of one group, kernel, device and dtype. Mostly they have taken the same number of steps, and
share one set of scalars. Where some had no gradient for a while, there are a few sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from adamas.formats.names import Storage
from adamas.kernels import gradient, lists
from adamas.kernels.bucket import Bucket, state_names, tell_autograd
from adamas.kernels.capture import is_captured, keep
from adamas.kernels.counter import new_steps
from adamas.options import PLAN_KEYS, STEP_KEYS
from adamas.scalars import Hyper, StepScalars, check_rate
from adamas.state.conform import conform, is_complete, steps_taken
from adamas.state.format import check_parameter, storage_of
from adamas.state.layout import ORDINARY, State, is_expanded
from adamas.state.shards import is_first_replica, is_sharded, local, place_of
from adamas.torch.dispatch import KERNELS, Choice, choose_for
from adamas.torch.groups import Group, check, extras, has_host_scalars, has_tensors, name_of, read
from adamas.torch.shards import Shards
from adamas.torch.tracing import is_faking, is_tracing

ACCELERATORS = ("cuda", "xpu")
CPU = torch.device("cpu")

step_values, plan_values = itemgetter(*STEP_KEYS), itemgetter(*PLAN_KEYS)

Groups = list[Group]
States = defaultdict[Tensor, State]
# The scalars of a bucket's different steps, and for each parameter the index of its own; None where all take the first.
Due: TypeAlias = tuple[list[StepScalars], list[int] | None]


class _Kind(NamedTuple):
    """The properties that all parameters of a bucket share."""

    group: int  # the number of the group
    choice: Choice  # the kernel, with the reason
    device: torch.device
    dtype: torch.dtype
    storage: Storage
    begins: bool  # whether averages of the weights begin at the next step
    on_device: bool  # whether the device counts the steps
    mesh: Any  # the mesh of the processes that have shards; None for plain tensors
    counted: bool  # whether this process adds its shards to the norm: of several replicas only the first does
    alone: int | None  # the id of a parameter that needs a bucket of its own; None for all others


class PlannedBucket:
    """Parameters of one kind, with their group and their complete states, which one call of a kernel steps."""

    def __init__(self, kind: _Kind, group: Group, params: list[Tensor], states: list[State]) -> None:
        self.kind = kind
        self.begins: Any = kind.begins  # a 0-d tensor later, where only the device knows
        _give_steps(states, kind)
        self.params, self.states, self.shards, places = params, states, None, None
        if kind.mesh is not None:
            names = state_names(bool(group["amsgrad"]), group["ema_decay"] is not None, kind.storage)
            self.shards = Shards(params, states, names)
            places = [place_of(param) for param in params]
            params, states = self.shards.params, self.shards.states
        foreach = kind.device.type in ACCELERATORS if group["foreach"] is None else group["foreach"]
        self.bucket = Bucket(
            params,
            states,
            kind.storage,
            amsgrad=bool(group["amsgrad"]),
            averages=group["ema_decay"] is not None,
            foreach=bool(foreach) and has_host_scalars(group),
            differentiable=bool(group["differentiable"]),
            counts=True,
            places=places,
            on_device=kind.on_device,
        )
        self.kernel = KERNELS[kind.choice.kernel]
        self.prepared = self.kernel.prepare(self.bucket)

    def take(self) -> None:
        """Hand the gradients to the kernel, which checks every tensor."""
        self.kernel.take(self.prepared, None if self.shards is None else self.shards.take(self.states))

    def step(self, due: Due, zero_grad: bool) -> None:
        """Step the parameters that have a gradient, and count the step."""
        scalars, which = due
        if self.shards is not None:
            tell_autograd(self.params, [i for i, param in enumerate(self.params) if param.grad is None], [])
        self.kernel.step(self.prepared, scalars, which, zero_grad)
        skip, begins = scalars[0].skip, self.begins
        if skip is None or begins is False:
            self.begins = False
        else:
            begins.logical_and_(skip)  # in place, because a graph that captured this step goes on reading the tensor
            keep(begins, begins.device)


class Plan:
    """The buckets of an optimizer, and the facts that `holds` compares to tell whether the buckets are still right.

    Args:
        groups: the optimizer's parameter groups, checked.
        states: the optimizer's state, which does not change before `commit`.
        may_skip: whether a device may decide to skip steps, and so has to count them.
        begun: whether averages of other parameters began at an earlier step.

    Raises:
        RuntimeError: a gradient is sparse, or a demanded kernel cannot step a parameter.
        ValueError: a state does not fit its parameter.
    """

    def __init__(self, groups: Groups, states: States, may_skip: bool, begun: bool = False) -> None:
        self._flags = [_flags(group) for group in groups]
        self._params = [list(group["params"]) for group in groups]
        self._hypers: list[tuple[Any, Hyper] | None] = [None for _ in groups]
        self._resting: list[Tensor] = []
        self._seen: set[Tensor] = set()
        self._states: list[State] = []
        # The meshes of all parameters, so that every process takes part in the same sums, whatever gradients it has.
        self._meshes = list(
            dict.fromkeys(
                param.device_mesh
                for group in groups
                for param in group["params"]
                if is_sharded(param) and not group["differentiable"]
            )
        )
        self._may_skip, self._begun = may_skip, begun
        self.committed = False
        self._tracing = is_tracing()
        together: dict[_Kind, tuple[list[Tensor], list[State]]] = {}
        for i, group in enumerate(groups):
            for kind, param, state in self._members(i, group, states):
                params, complete = together.setdefault(kind, ([], []))
                params.append(param)
                complete.append(state)
        self.buckets = [PlannedBucket(kind, groups[kind.group], *members) for kind, members in together.items()]
        # Whether norms and verdicts stay in tensors, so that the host does not wait for a device. The host decides if
        # parameters lie both on the CPU and elsewhere, or if it counts the steps of some.
        devices = {kind.device for kind in together}
        self.on_accelerator = any(device.type in ACCELERATORS for device in devices)
        accelerated = all(device.type in ACCELERATORS for device in devices)
        counted = all(kind.on_device for kind in together)
        self.on_device = (counted and (accelerated or len(devices) == 1)) or (
            self.on_accelerator and accelerated and not may_skip
        )

    def at_home(self, scalar: Any) -> Any:
        """A scalar on the first bucket's device, which decides for all buckets."""
        return _on(self.buckets[0].kind.device, scalar) if self.buckets else scalar

    def commit(self, states: States) -> None:
        """Write the buckets' complete states into the dicts of the optimizer's state, which stay the same objects."""
        if self.committed:
            return
        self.committed = True
        for bucket in self.buckets:
            for i, (param, complete) in enumerate(zip(bucket.params, bucket.states, strict=True)):
                mine = states[param]
                for key in mine.keys() - complete.keys():
                    del mine[key]
                mine.update(complete)
                bucket.states[i] = mine
        self._states = list(states.values())

    def _members(self, index: int, group: Group, states: States) -> Iterator[tuple[_Kind, Tensor, State]]:
        """The parameters of a group that have a gradient now or had one earlier, each with its kind and complete state.

        They are checked, and nothing is written.
        """
        # Averages begin as copies of the weights after the group's first step with averages. A parameter with a first
        # gradient later has not moved before: its average begins at the weight before that step.
        begun = self._begun or any(map(_is_averaged, map(states.get, group["params"])))
        begins = group["ema_decay"] is not None and not begun
        for i, param in enumerate(group["params"]):
            if param in self._seen:
                continue  # listed twice, of which torch warned at construction: it is stepped once
            self._seen.add(param)
            name = name_of(group, i, f"parameter {i} of group {index}")
            before = states.get(param, {})
            storage = storage_of(param, group) if param.grad is not None or before else None
            if storage is None or (param.grad is None and not is_complete(before, param, storage, extras(group))):
                self._resting.append(param)
                continue
            check_parameter(name, param, group)
            _check_steppable(param, name)
            choice = choose_for(param, group)
            state = conform(before, param, storage, extras(group), name)
            device, mesh = local(param).device, None
            if is_sharded(param) and not group["differentiable"]:
                mesh = param.device_mesh
            on_device = (
                bool(group["capturable"]) or (self._may_skip and device.type in ACCELERATORS) or is_tracing(param)
            )
            # The host does not read counts on a device, which may differ between parameters. triton takes a tensor with
            # a count for each parameter; eager takes one count, so that each parameter needs a bucket of its own.
            alone = id(param) if on_device and choice.kernel != "triton" else None
            counted = mesh is None or is_first_replica(param)
            kind = _Kind(index, choice, device, param.dtype, storage, begins, on_device, mesh, counted, alone)
            yield kind, param, state

    def holds(self, groups: Groups, states: States, may_skip: bool) -> bool:
        """Whether the buckets still fit the groups, states and gradients.

        A parameter without gradient stays in its bucket. Tensors that were moved or resized are not noticed here: the
        kernels refuse them in `take`, before anything is written.
        """
        return (
            (may_skip is self._may_skip or not self.on_accelerator)
            and len(groups) == len(self._params)
            and lists.same_objects(list(states.values()), self._states)
            and all(map(lists.same_objects, (group["params"] for group in groups), self._params))
            and [_flags(group) for group in groups] == self._flags
            and all(param.grad is None for param in self._resting)
            and is_tracing() is self._tracing
        )

    def only_begins(self, groups: Groups, states: States) -> bool:
        """Whether this is the step by which torch.distributed.checkpoint makes a state, and which counts as none.

        Such a step has lr = 0, gradients of zeros and no earlier state. It would change only the number of steps.
        """
        used = [groups[bucket.kind.group]["lr"] for bucket in self.buckets]
        on_host = not any(isinstance(lr, Tensor) and (lr.device.type != "cpu" or lr.requires_grad) for lr in used)
        if not used or not on_host or any(map(float, used)) or any(states.values()) or self._tracing:
            return False
        if any(is_captured(bucket.kind.device) for bucket in self.buckets):
            return False
        return gradient.global_norm(self.squares(), 1.0, on_device=False) == 0

    def take(self) -> None:
        """Hand all gradients to the kernels, which check every tensor."""
        for bucket in self.buckets:
            bucket.take()

    def step(self, dues: list[Due], zero_in_place: bool) -> None:
        """Step every bucket, and release its gradients, filled with zeros where asked."""
        # Gradients that share memory are zeroed last: a kernel would read zeros for the second of them.
        in_pass = zero_in_place and not self._replaced() and lists.disjoint(self.gradients())
        for bucket, due in zip(self.buckets, dues, strict=True):
            bucket.step(due, in_pass)
        if zero_in_place and not in_pass:
            self._zero()

    def release(self, zero_in_place: bool) -> None:
        """Release the gradients without a step."""
        for bucket in self.buckets:
            bucket.kernel.release(bucket.prepared)
        if zero_in_place:
            self._zero()

    def gradients(self) -> list[Tensor]:
        """The gradients of all buckets, or this process's shards of them, each once."""
        grads = (param.grad for bucket in self.buckets for param in bucket.params)
        return list({id(grad): local(grad) for grad in grads if grad is not None}.values())

    def _replaced(self) -> bool:
        """Whether a kernel took copies of gradients that are sharded otherwise than their parameters."""
        return any(bucket.shards is not None and bucket.shards.replaced for bucket in self.buckets)

    def _zero(self) -> None:
        for grad in self.gradients():
            grad.detach().zero_()

    def squares(self) -> list[Any]:
        """The sum of squares of each gradient that was taken; for shards one sum a mesh, over all its processes."""
        squares: list[Any] = []
        shards: dict[Any, list[Any]] = {mesh: [] for mesh in self._meshes}
        for bucket in self.buckets:
            found = bucket.kernel.squares(bucket.prepared)
            if bucket.kind.counted:
                (squares if bucket.kind.mesh is None else shards[bucket.kind.mesh]).extend(found)
        return squares + [gradient.over_mesh(found, mesh) for mesh, found in shards.items()]

    def _hyper(self, index: int, group: Group) -> tuple[Hyper, float | None]:
        """A group's values, read and checked again after a change; and the rate, where only that has changed."""
        if has_tensors(group):
            self._hypers[index] = None
            return (check(group) if has_host_scalars(group) else read(group)), None
        known, values = self._hypers[index], step_values(group)
        if known is not None and known[0] == values:
            return known[1], None
        if known is not None and known[0][1:] == values[1:] and type(values[0]) is float:
            check_rate(values[0])
            return known[1], values[0]
        known = self._hypers[index] = values, check(group)
        return known[1], None

    def due(self, groups: Groups, factor: Any, skip: Tensor | None) -> list[Due]:
        """The scalars of each bucket's next step, from the present groups, the gradients' factor and the verdict."""
        dues: list[Due] = []
        for bucket in self.buckets:
            group, device = groups[bucket.kind.group], bucket.kind.device
            hyper, lr = self._hyper(bucket.kind.group, group)
            numbers, which = bucket.kernel.upcoming(bucket.prepared)
            if skip is not None and bucket.begins is True:
                # A tensor from the first step on, so that all steps run the same kernel.
                bucket.begins = torch.ones((), dtype=torch.bool, device=device)
            seed, here = group["seed"] if bucket.kind.storage.random else None, _on(device, factor)
            scalars = [StepScalars.of(hyper, number, here, bucket.begins, seed, lr) for number in numbers]
            if skip is not None:
                there = _on(device, skip)
                scalars = [each._replace(skip=there) for each in scalars]
            dues.append((scalars, which))
        return dues


def _on(device: torch.device, scalar: Any) -> Any:
    """A scalar on the given device; a number stays one."""
    return scalar.to(device, non_blocking=True) if isinstance(scalar, Tensor) else scalar


def _check_steppable(param: Tensor, name: str) -> None:
    """Raise on a parameter that no kernel can step."""
    if param.grad is not None and param.grad.layout is not torch.strided:
        raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
    if is_expanded(param):
        raise ValueError(f"{name} is expanded: elements that share memory cannot be stepped separately. clone() it")
    if type(param) in ORDINARY and is_faking():
        raise RuntimeError(f"{name} is no FakeTensor, and FakeTensorMode is active: convert it by mode.from_tensor")


def _is_averaged(state: State | None) -> bool:
    """Whether the average in a state has begun; before the first step it only holds a place."""
    if not state or "ema" not in state:
        return False
    step = state.get("step")
    return getattr(step, "device", CPU) != CPU or step != 0


def _flags(group: Group) -> tuple[Any, ...]:
    return (*plan_values(group), group["ema_decay"] is None)


def _give_steps(states: list[State], kind: _Kind) -> None:
    """Make "step" a tensor that can be counted in place in each state: keep the present one where it can."""
    lacking: list[State] = []
    for state in states:
        step = state.get("step")
        if not kind.on_device:
            steps_taken(state)  # raises where "step" is no number of steps
            if not (type(step) is Tensor and step.device.type == "cpu" and step.numel() == 1):
                lacking.append(state)
        elif not isinstance(step, Tensor):
            state["step"] = torch.full((), float(step or 0), dtype=torch.float32, device=kind.device)
        elif not (step.dtype == torch.float32 and step.device == kind.device and step.dim() == 0):
            state["step"] = step.detach().to(device=kind.device, dtype=torch.float32).reshape(())
    for state, step in zip(lacking, new_steps([steps_taken(state) for state in lacking]), strict=True):
        state["step"] = step
