"""The plan of a step: which parameters go to which kernel together. Made when something changed, used until it does.

A bucket holds parameters of one group, kernel, device and dtype. Mostly they have taken the same number of steps, and
one set of scalars serves them all; where some had no gradient for a while there are a few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.formats.names import Storage
from adamas.kernels import lists
from adamas.kernels.bucket import Bucket
from adamas.kernels.capture import keep
from adamas.kernels.counter import new_steps
from adamas.options import PLAN_KEYS, STEP_KEYS
from adamas.scalars import Hyper, StepScalars, check_rate
from adamas.state.conform import conform, is_complete, steps_taken
from adamas.state.format import check_parameter, storage_of
from adamas.state.layout import ORDINARY, State, is_expanded
from adamas.torch.dispatch import KERNELS, Choice, choose_for
from adamas.torch.groups import Group, check, extras, has_host_scalars, has_tensors, name_of, read
from adamas.torch.tracing import is_faking, is_tracing

ACCELERATORS = ("cuda", "xpu")

step_values, plan_values = itemgetter(*STEP_KEYS), itemgetter(*PLAN_KEYS)

Groups = list[Group]
States = defaultdict[Tensor, State]


class Due(NamedTuple):
    """What a bucket's step is given: the scalars of its different steps, and which of them each parameter takes."""

    scalars: list[StepScalars]
    which: list[int] | None


class PlannedBucket:
    """Parameters that are stepped in one call, with the kernel that does it.

    Args:
        group: the number of their group.
        choice: the kernel that steps them.
        bucket: the parameters and their states.
        begins: whether averages of the weights begin at the next step; a 0-d tensor where only the device knows.
    """

    def __init__(self, group: int, choice: Choice, bucket: Bucket, begins: Any) -> None:
        self.group, self.bucket = group, bucket
        self.begins: Any = begins
        self.kernel = KERNELS[choice.kernel]
        self.prepared = self.kernel.prepare(bucket)

    def take(self) -> None:
        """Hand the parameters' gradients of this moment to the kernel, which checks every tensor."""
        self.kernel.take(self.prepared)

    def step(self, due: Due, zero_grad: bool) -> None:
        """Step the parameters that have a gradient, and count it."""
        self.kernel.step(self.prepared, due.scalars, due.which, zero_grad)
        skip, begins = due.scalars[0].skip, self.begins
        if skip is None or begins is False:
            self.begins = False
        else:
            begins.logical_and_(skip)  # in place: a graph that captured this step goes on reading it
            keep(begins, begins.device)


class Plan:
    """The buckets of an optimizer, and what to look at to know whether they still hold.

    Args:
        groups: the optimizer's parameter groups, validated.
        states: the optimizer's state, which is not changed before `commit`.
        may_skip: whether a device may decide to skip steps, and so has to count them.
        begun: whether averages of other parameters began at an earlier step.

    Raises:
        RuntimeError: sparse gradients, or a demanded kernel that cannot step a parameter.
        ValueError: a state that does not fit its parameter.
    """

    def __init__(self, groups: Groups, states: States, may_skip: bool, begun: bool = False) -> None:
        self._flags = [_flags(group) for group in groups]
        self._params = [list(group["params"]) for group in groups]
        self._hypers: list[tuple[Any, Hyper] | None] = [None for _ in groups]
        self._resting: list[Tensor] = []
        self._seen: set[Tensor] = set()
        self._states: list[State] = []
        self._may_skip, self._begun = may_skip, begun
        self.committed = False
        self._tracing = is_tracing()
        members = [member for i, group in enumerate(groups) for member in self._members(i, group, states)]
        self.buckets = list(_bucketed(members, groups))
        self.on_accelerator = any(member.param.device.type in ACCELERATORS for member in members)
        # Whether norms and verdicts stay in tensors, for which the host does not wait. Where some parameters lie on the
        # CPU and others do not, or some have their steps counted by the host, the host decides for all.
        devices = {member.param.device for member in members}
        accelerated = all(device.type in ACCELERATORS for device in devices)
        counted = all(member.on_device for member in members)
        self.on_device = (counted and (accelerated or len(devices) == 1)) or (
            self.on_accelerator and accelerated and not may_skip
        )

    def at_home(self, scalar: Any) -> Any:
        """A scalar where what concerns all buckets is decided: on the first one's device."""
        return _on(self.buckets[0].bucket.params[0].device, scalar) if self.buckets else scalar

    def commit(self, states: States) -> None:
        """Write the buckets' complete states into the optimizer's, whose dicts stay the same objects."""
        if self.committed:
            return
        self.committed = True
        for bucket in self.buckets:
            for i, (param, complete) in enumerate(zip(bucket.bucket.params, bucket.bucket.states, strict=True)):
                mine = states[param]
                for key in mine.keys() - complete.keys():
                    del mine[key]
                mine.update(complete)
                bucket.bucket.states[i] = mine
        self._states = list(states.values())

    def _members(self, index: int, group: Group, states: States) -> Iterator[_Member]:
        """The parameters of a group that have a gradient, or have had one, checked; nothing is written yet."""
        # An average begins as a copy of the weights after a group's first step with one. Who gets a first gradient
        # later has not moved before: its average begins at the weight before that step, as if it had been kept.
        begun = self._begun or any("ema" in states.get(p, {}) for p in group["params"])
        begins = group["ema_decay"] is not None and not begun
        for i, param in enumerate(group["params"]):
            if param in self._seen:
                continue  # listed twice, which torch warns of when the group is made: stepped once
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
            on_device = (
                bool(group["capturable"]) or (self._may_skip and param.device.type in ACCELERATORS) or is_tracing(param)
            )
            yield _Member(index, param, state, storage, choice, begins, on_device)

    def holds(self, groups: Groups, states: States, may_skip: bool) -> bool:
        """Whether groups, states and gradients are still those that the buckets were made of.

        A gradient that went missing changes nothing: its parameter rests in its bucket. What is not looked at here (a
        parameter or moment that was moved or resized) the kernels refuse in `take`, before anything is written.
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

    def take(self) -> None:
        """Hand all gradients to the kernels, which check every tensor."""
        for bucket in self.buckets:
            bucket.take()

    def step(self, dues: list[Due], zero_in_place: bool) -> None:
        """Step every bucket; then its gradients are let go, and zeroed where asked to."""
        # In the same pass only where no gradient is also another's: that one would be read as zeros.
        in_pass = zero_in_place and lists.disjoint(self.gradients())
        for bucket, due in zip(self.buckets, dues, strict=True):
            bucket.step(due, in_pass)
        if zero_in_place and not in_pass:
            self._zero()

    def release(self, zero_in_place: bool) -> None:
        """Let the gradients go without a step."""
        for bucket in self.buckets:
            bucket.kernel.release(bucket.prepared)
        if zero_in_place:
            self._zero()

    def gradients(self) -> list[Tensor]:
        """The gradients that there are, each once."""
        grads = (param.grad for bucket in self.buckets for param in bucket.bucket.params)
        return list({id(grad): grad for grad in grads if grad is not None}.values())

    def _zero(self) -> None:
        for grad in self.gradients():
            grad.detach().zero_()

    def squares(self) -> list[Any]:
        """The sum of squares of each gradient taken."""
        return [square for bucket in self.buckets for square in bucket.kernel.squares(bucket.prepared)]

    def _hyper(self, index: int, group: Group) -> tuple[Hyper, float | None]:
        """A group's values, read and checked again when they changed; its rate, where a schedule changed only that."""
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
        """What each bucket's coming step is given.

        Args:
            groups: the optimizer's groups, as they are now.
            factor: what gradients are multiplied with.
            skip: a 0-d tensor that says on the device whether the step is to change nothing.
        """
        return [self._due(bucket, groups[bucket.group], factor, skip) for bucket in self.buckets]

    def _due(self, bucket: PlannedBucket, group: Group, factor: Any, skip: Tensor | None) -> Due:
        hyper, lr = self._hyper(bucket.group, group)
        numbers, which = bucket.kernel.upcoming(bucket.prepared)
        if factor.__class__ is not float or skip is not None:
            device = bucket.bucket.params[0].device
            factor, skip = _on(device, factor), _on(device, skip)
            if skip is not None and bucket.begins is True:  # from the first step on: all take the same kernel
                bucket.begins = torch.ones((), dtype=torch.bool, device=device)
        seed = group["seed"] if bucket.bucket.storage.random else None
        scalars = [StepScalars.of(hyper, number, factor, bucket.begins, seed, lr) for number in numbers]
        return Due(scalars if skip is None else [each._replace(skip=skip) for each in scalars], which)


def _on(device: torch.device, scalar: Any) -> Any:
    """A scalar that was decided on one of several devices, on another."""
    return scalar.to(device, non_blocking=True) if isinstance(scalar, Tensor) else scalar


class _Member(NamedTuple):
    """A parameter of the plan, its complete state and its kernel."""

    group: int
    param: Tensor
    state: State
    storage: Storage
    choice: Choice
    begins: bool
    on_device: bool  # whether its steps are counted there


def _check_steppable(param: Tensor, name: str) -> None:
    """Raise on a parameter that no kernel can step."""
    if param.grad is not None and param.grad.layout is not torch.strided:
        raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
    if is_expanded(param):
        raise ValueError(f"{name} is expanded: its elements share memory and cannot be stepped apart. clone() it")
    if type(param) in ORDINARY and is_faking():
        raise RuntimeError(f"{name} is no FakeTensor, and FakeTensorMode is active: convert it by mode.from_tensor")
    if param.is_conj():
        raise ValueError(f"{name} is a conjugated view, which cannot be written in place. resolve_conj() it")


def _flags(group: Group) -> tuple[Any, ...]:
    return (*plan_values(group), group["ema_decay"] is None)


def _bucketed(members: list[_Member], groups: Groups) -> Iterator[PlannedBucket]:
    """Members that can be stepped together, together, in the order in which they first appear."""
    together: dict[tuple[Any, ...], list[_Member]] = {}
    for member in members:
        param, choice = member.param, member.choice
        # A count that lies on a device is not looked at: what may differ between parameters is then a tensor, of which
        # triton takes each one's element, and eager a number.
        alone = id(param) if member.on_device and choice.kernel != "triton" else None
        key = (member.group, choice, param.device, param.dtype, member.storage, member.on_device, alone)
        together.setdefault(key, []).append(member)
    for (index, choice, device, *_), alike in together.items():
        group, first = groups[index], alike[0]
        _give_steps(alike)
        bucket = Bucket(
            params=[member.param for member in alike],
            states=[member.state for member in alike],
            storage=first.storage,
            amsgrad=bool(group["amsgrad"]),
            averages=group["ema_decay"] is not None,
            foreach=_foreach(group, device),
            differentiable=bool(group["differentiable"]),
            counts=True,
            on_device=first.on_device,
        )
        yield PlannedBucket(index, choice, bucket, first.begins)


def _give_steps(members: list[_Member]) -> None:
    """Give each state a counter that can be counted in place: its own where that is possible, else a new one."""
    lacking: list[_Member] = []
    for member in members:
        step, device = member.state.get("step"), member.param.device
        if member.on_device:
            if not isinstance(step, Tensor):
                member.state["step"] = torch.full((), float(step or 0), dtype=torch.float32, device=device)
            elif not (step.dtype == torch.float32 and step.device == device and step.dim() == 0):
                member.state["step"] = step.detach().to(device=device, dtype=torch.float32).reshape(())
            continue
        steps_taken(member.state)  # which raises where it is no number of steps
        if not (type(step) is Tensor and step.device.type == "cpu" and step.numel() == 1):
            lacking.append(member)
    for member, step in zip(lacking, new_steps([steps_taken(member.state) for member in lacking]), strict=True):
        member.state["step"] = step


def _foreach(group: Group, device: torch.device) -> bool:
    """Whether `eager` takes all tensors at once: where asked to, and on accelerators, whose launches cost."""
    if group["differentiable"] or group["capturable"]:
        return False
    return bool(group["foreach"]) if group["foreach"] is not None else device.type in ACCELERATORS
