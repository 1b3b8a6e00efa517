"""The plan of a step: which parameters go to which kernel together. Made when something changed, used until it does.

A bucket holds parameters of one group, kernel, device and dtype. Mostly they have taken the same number of steps, and
one set of scalars serves them all; where some had no gradient for a while there are a few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.kernels import native
from adamas.kernels.bucket import Bucket, Storage, param_traits
from adamas.kernels.capture import keep
from adamas.kernels.counter import DeviceCounter, StepCounter
from adamas.scalars import Hyper, StepScalars, check_rate
from adamas.torch.dispatch import KERNELS, Choice, Request, choose
from adamas.torch.groups import FLAG_KEYS, HYPER_KEYS, Group, check, extras, has_host_scalars, has_tensors, read
from adamas.torch.state import State, conform, is_complete, steps_taken
from adamas.torch.storage import check_parameters, storage_of

ACCELERATORS = ("cuda", "xpu")

hyper_values, flag_values = itemgetter(*HYPER_KEYS), itemgetter(*FLAG_KEYS)

Groups = list[Group]
States = defaultdict[Tensor, State]


class Due(NamedTuple):
    """What a bucket's step is given: the scalars of its different steps, and which of them each parameter takes."""

    scalars: list[StepScalars]
    which: list[int] | None


@dataclass(slots=True)
class PlannedBucket:
    """Parameters that are stepped in one call, with the kernel that does it."""

    group: int
    kernel: ModuleType
    bucket: Bucket
    counter: StepCounter | DeviceCounter
    prepared: Any
    begins: Any  # whether averages begin at the next step; a 0-d tensor where only the device knows
    absent: list[int] = field(default_factory=list)  # who has no gradient at this step

    def take(self) -> None:
        """Hand the parameters' gradients of this moment to the kernel, which checks every tensor."""
        grads = native.grads_of(self.bucket.params)
        self.absent = native.absent(grads)
        self.kernel.take(self.prepared, grads)

    def upcoming(self) -> tuple[list[Any], list[int] | None]:
        """The numbers of the different steps that are due, and which of them each parameter takes: None if all one."""
        counts = self.counter.upcoming()
        if not isinstance(counts, list):
            return [counts], None
        different = {count: n for n, count in enumerate(dict.fromkeys(counts))}
        return list(different), [different[count] for count in counts]

    def step(self, due: Due, zero_grad: bool) -> None:
        """Step the parameters that have a gradient, and count it."""
        self.kernel.step(self.prepared, due.scalars, due.which, zero_grad)
        skip = due.scalars[0].skip
        self.counter.advance(self.absent, skip)
        if skip is None or self.begins is False:
            self.begins = False
        else:
            self.begins.logical_and_(skip)  # in place: a graph that captured this step goes on reading it
            keep(self.begins, self.begins.device)

    def counts_are_ours(self) -> bool:
        """Whether every state still shows this bucket's counter, and nobody else wrote to it."""
        return self.counter.untouched() and native.items_are(self.bucket.states, "step", self.counter.views)


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
        members = [member for i, group in enumerate(groups) for member in self._members(i, group, states)]
        self.buckets = list(_bucketed(members, groups))
        self.on_accelerator = any(member.param.device.type in ACCELERATORS for member in members)
        # Whether norms and verdicts stay in tensors, for which the host does not wait. Where some parameters lie on the
        # CPU and others do not, or some have their steps counted by the host, the host decides for all.
        devices = {member.param.device for member in members}
        accelerated = all(device.type in ACCELERATORS for device in devices)
        counted = all(member.device_counts for member in members)
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
                for key in states[param].keys() - complete.keys():
                    del states[param][key]
                states[param].update(complete)
                bucket.bucket.states[i] = states[param]
        self._states = list(states.values())

    def _members(self, index: int, group: Group, states: States) -> Iterator[_Member]:
        """The parameters of a group that have a gradient, or have had one, checked; nothing is written yet."""
        names = group.get("param_names")
        # An average begins as a copy of the weights after a group's first step with one. Who gets a first gradient
        # later has not moved before: its average begins at the weight before that step, as if it had been kept.
        begun = self._begun or any("ema" in states.get(p, {}) for p in group["params"])
        begins = group["ema_decay"] is not None and not begun
        for i, param in enumerate(group["params"]):
            if param in self._seen:
                continue  # listed twice, which torch warns of when the group is made: stepped once
            self._seen.add(param)
            name = names[i] if names else f"parameter {i} of group {index}"
            before = states.get(param, {})
            check_parameters([(name, param)], group)
            storage = storage_of(param, group)
            if param.grad is None and not is_complete(before, param, storage, extras(group)):
                self._resting.append(param)
                continue
            if param.grad is not None and param.grad.layout is not torch.strided:
                raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
            if any(stride == 0 and size > 1 for stride, size in zip(param.stride(), param.shape, strict=True)):
                raise ValueError(
                    f"{name} is expanded: its elements share memory and cannot be stepped apart. clone() it"
                )
            choice = choose_for(param, group)
            state = conform(before, param, storage, extras(group), name)
            device_counts = bool(group["capturable"]) or (self._may_skip and param.device.type in ACCELERATORS)
            yield _Member(index, param, state, storage, choice, begins, device_counts)

    def holds(self, groups: Groups, states: States, may_skip: bool) -> bool:
        """Whether groups, states and gradients are still those that the buckets were made of.

        A gradient that went missing changes nothing: its parameter rests in its bucket. What is not looked at here (a
        parameter or moment that was moved or resized) the kernels refuse in `take`, before anything is written.
        """
        return (
            (may_skip is self._may_skip or not self.on_accelerator)
            and len(groups) == len(self._params)
            and native.same_objects(list(states.values()), self._states)
            and all(map(native.same_objects, (group["params"] for group in groups), self._params))
            and [_flags(group) for group in groups] == self._flags
            and all(param.grad is None for param in self._resting)
            and all(bucket.counts_are_ours() for bucket in self.buckets)
        )

    def step(self, due: list[Due], zero_in_place: bool) -> None:
        """Step every bucket; then its gradients are let go, and zeroed where asked to."""
        # In the same pass only where no gradient is also another's: that one would be read as zeros.
        in_pass = zero_in_place and native.disjoint([param.grad for param in self._present()])
        for bucket, each in zip(self.buckets, due, strict=True):
            bucket.step(each, in_pass)
        if zero_in_place and not in_pass:
            self._zero()

    def release(self, zero_in_place: bool) -> None:
        """Let the gradients go without a step."""
        for bucket in self.buckets:
            bucket.kernel.release(bucket.prepared)
        if zero_in_place:
            self._zero()

    def _present(self) -> Iterator[Tensor]:
        """The parameters that have a gradient."""
        return (param for bucket in self.buckets for param in bucket.bucket.params if param.grad is not None)

    def _zero(self) -> None:
        for param in self._present():
            param.grad.detach().zero_()  # pyright: ignore[reportOptionalMemberAccess] - present

    def squares(self) -> list[Any]:
        """The sum of squares of each gradient taken."""
        return [square for bucket in self.buckets for square in bucket.kernel.squares(bucket.prepared)]

    def _hyper(self, index: int, group: Group) -> tuple[Hyper, float | None]:
        """A group's values, read and checked again when they changed; its rate, where a schedule changed only that."""
        if has_tensors(group):
            self._hypers[index] = None
            return (check(group) if has_host_scalars(group) else read(group)), None
        known, values = self._hypers[index], hyper_values(group)
        if known is not None and known[0] == values:
            return known[1], None
        if known is not None and known[0][1:] == values[1:] and type(values[0]) is float:
            check_rate(values[0])
            return known[1], values[0]
        known = self._hypers[index] = values, check(group)
        return known[1], None

    def due(self, bucket: PlannedBucket, group: Group, grad_factor: Any, skip: Tensor | None) -> Due:
        """What a bucket's next step is given."""
        hyper, lr = self._hyper(bucket.group, group)
        different, which = bucket.upcoming()
        device = bucket.bucket.params[0].device
        grad_factor, skip = _on(device, grad_factor), _on(device, skip)
        if skip is not None and bucket.begins is True:  # from the first step on, so that all take the same kernel
            bucket.begins = torch.ones((), dtype=torch.bool, device=skip.device)
        seed = group["seed"] if bucket.bucket.storage.random else None
        scalars = [StepScalars.of(hyper, count, grad_factor, bucket.begins, seed, lr) for count in different]
        return Due(scalars if skip is None else [each._replace(skip=skip) for each in scalars], which)


def _on(device: torch.device, scalar: Any) -> Any:
    """A scalar that was decided on one of several devices, on another."""
    return scalar.to(device, non_blocking=True) if isinstance(scalar, Tensor) else scalar


@dataclass(slots=True)
class _Member:
    """A parameter of the plan, its complete state and its kernel."""

    group: int
    param: Tensor
    state: State
    storage: Storage
    choice: Choice
    begins: bool
    device_counts: bool


def choose_for(param: Tensor, group: Group) -> Choice:
    """The kernel for a parameter of a group with the gradient it has; without one, as if it were like the parameter."""
    grad = param if param.grad is None else param.grad
    storage, differentiable = storage_of(param, group), bool(group["differentiable"])
    traits = param_traits(param, grad, has_host_scalars(group), storage, differentiable)
    return choose(traits, Request(group["kernel"], group["fused"], group["foreach"]))


def _flags(group: Group) -> tuple[Any, ...]:
    return (*flag_values(group), group["ema_decay"] is None)


def _bucketed(members: list[_Member], groups: Groups) -> Iterator[PlannedBucket]:
    """Members that can be stepped together, together, in the order in which they first appear."""
    together: dict[tuple[Any, ...], list[_Member]] = {}
    for member in members:
        param, choice = member.param, member.choice
        # A count that lies on a device is not looked at: what may differ between parameters is then a tensor, of which
        # triton takes each one's element, and eager a number.
        alone = id(param) if member.device_counts and choice.kernel != "triton" else None
        key: tuple[Any, ...] = (
            member.group,
            choice,
            param.device,
            param.dtype,
            member.storage,
            member.device_counts,
            alone,
        )
        together.setdefault(key, []).append(member)
    for (index, choice, device, *_), alike in together.items():
        group = groups[index]
        if alike[0].device_counts:
            counter = DeviceCounter([member.state.get("step", 0) for member in alike], device)
        else:
            counter = StepCounter([steps_taken(member.state) for member in alike])
        for member, view in zip(alike, counter.views, strict=True):
            member.state["step"] = view
        bucket = Bucket(
            params=[member.param for member in alike],
            states=[member.state for member in alike],
            storage=alike[0].storage,
            amsgrad=bool(group["amsgrad"]),
            averages=group["ema_decay"] is not None,
            foreach=_foreach(group, device),
            differentiable=bool(group["differentiable"]),
        )
        module = KERNELS[choice.kernel]
        prepared = module.prepare(bucket)
        yield PlannedBucket(index, module, bucket, counter, prepared, alike[0].begins)


def _foreach(group: Group, device: torch.device) -> bool:
    """Whether `eager` takes all tensors at once: where asked to, and on accelerators, whose launches cost."""
    if group["differentiable"] or group["capturable"]:
        return False
    return bool(group["foreach"]) if group["foreach"] is not None else device.type in ACCELERATORS
