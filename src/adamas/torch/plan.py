"""The plan of a step: which parameters go to which kernel together. Made when something changed, used until it does.

A bucket holds parameters of one group, kernel, device and dtype that have taken the same number of steps, so that one
set of scalars serves them all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import is_
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from adamas.kernels import native
from adamas.kernels.bucket import Bucket, param_traits
from adamas.kernels.counter import DeviceCounter, StepCounter
from adamas.scalars import Hyper, StepScalars
from adamas.torch.dispatch import KERNELS, Choice, Request, choose
from adamas.torch.groups import FLAG_KEYS, HYPER_KEYS, Group, check, has_host_scalars, has_tensors, read
from adamas.torch.state import State, conform, steps_taken

Groups = list[Group]
States = defaultdict[Tensor, State]


@dataclass(slots=True)
class PlannedBucket:
    """Parameters that take the same step, with the kernel that takes it and the reason for that kernel."""

    group: int
    kernel: ModuleType
    reason: str
    bucket: Bucket
    counter: StepCounter | DeviceCounter
    prepared: Any

    def take(self) -> None:
        """Hand the parameters' gradients of this moment to the kernel, which checks every tensor."""
        self.kernel.take(self.prepared, [param.grad for param in self.bucket.params])

    def step(self, scalars: StepScalars) -> None:
        """Step the parameters and count it."""
        self.kernel.step(self.prepared, scalars)
        self.counter.advance()

    def counts_are_ours(self) -> bool:
        """Whether every state still shows this bucket's counter, and nobody else wrote to it."""
        return self.counter.untouched() and native.items_are(self.bucket.states, "step", self.counter.views)


class Plan:
    """The buckets of an optimizer, and what to look at to know whether they still hold.

    Args:
        groups: the optimizer's parameter groups, validated.
        states: the optimizer's state, which is not changed before `commit`.

    Raises:
        RuntimeError: sparse gradients, or a demanded kernel that cannot step a parameter.
        ValueError: a state that does not fit its parameter.
    """

    def __init__(self, groups: Groups, states: States) -> None:
        self._flags = [_flags(group) for group in groups]
        self._params = [list(group["params"]) for group in groups]
        self._hypers: list[tuple[Any, Hyper] | None] = [None for _ in groups]
        self._resting: list[Tensor] = []
        self._seen: set[Tensor] = set()
        self._states: list[State] = []
        members = [member for i, group in enumerate(groups) for member in self._members(i, group, states)]
        self.buckets = list(_bucketed(members, groups))
        self.on_accelerator = any(member.param.device.type in ("cuda", "xpu") for member in members)

    def commit(self, states: States) -> None:
        """Write the buckets' complete states into the optimizer's, whose dicts stay the same objects."""
        for bucket in self.buckets:
            for i, (param, complete) in enumerate(zip(bucket.bucket.params, bucket.bucket.states, strict=True)):
                states[param].update(complete)
                bucket.bucket.states[i] = states[param]
        self._states = list(states.values())

    def _members(self, index: int, group: Group, states: States) -> Iterator[_Member]:
        """The parameters of a group that have a gradient, checked; nothing is written yet."""
        names = group.get("param_names")
        for i, param in enumerate(group["params"]):
            if param in self._seen:
                continue  # listed twice, which torch warns of when the group is made: stepped once
            self._seen.add(param)
            if param.grad is None:
                self._resting.append(param)
                continue
            name = names[i] if names else f"parameter {i} of group {index}"
            if param.grad.layout is not torch.strided:
                raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
            if any(stride == 0 and size > 1 for stride, size in zip(param.stride(), param.shape, strict=True)):
                raise ValueError(
                    f"{name} is expanded: its elements share memory and cannot be stepped apart. clone() it"
                )
            choice = choose_for(param, group)
            state = conform(states.get(param, {}), param, group["amsgrad"], name)
            yield _Member(index, param, state, choice.kernel, choice.reason)

    def holds(self, groups: Groups, states: States) -> bool:
        """Whether groups, states and gradients are still those that the buckets were made of.

        What is not looked at here (a gradient that went missing, a parameter or moment that was moved or resized) the
        kernels refuse in `take`, before anything is written.
        """
        return (
            len(groups) == len(self._params)
            and len(states) == len(self._states)
            and all(map(is_, states.values(), self._states))
            and all(map(_same, (group["params"] for group in groups), self._params))
            and all(_flags(group) == flags for group, flags in zip(groups, self._flags, strict=True))
            and all(param.grad is None for param in self._resting)
            and all(bucket.counts_are_ours() for bucket in self.buckets)
        )

    def scalars(self, bucket: PlannedBucket, group: Group, grad_scale: float) -> StepScalars:
        """The scalars of a bucket's next step; the group's values are read, and validated, again when they changed."""
        known = self._hypers[bucket.group]
        values = tuple(map(group.get, HYPER_KEYS))
        if has_tensors(group):
            known = (values, check(group) if has_host_scalars(group) else read(group))
            self._hypers[bucket.group] = None
        elif known is None or known[0] != values:
            known = self._hypers[bucket.group] = (values, check(group))
        return StepScalars.of(known[1], bucket.counter.next(), grad_scale)


@dataclass(slots=True)
class _Member:
    """A parameter with a gradient, its complete state and its kernel."""

    group: int
    param: Tensor
    state: State
    kernel: str
    reason: str


def choose_for(param: Tensor, group: Group) -> Choice:
    """The kernel for a parameter of a group with the gradient it has; without one, as if it were like the parameter."""
    traits = param_traits(param, param if param.grad is None else param.grad, has_host_scalars(group))
    return choose(traits, Request(group["kernel"], group["fused"], group["foreach"]))


def _flags(group: Group) -> tuple[Any, ...]:
    return tuple(map(group.get, FLAG_KEYS))


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))


def _bucketed(members: list[_Member], groups: Groups) -> Iterator[PlannedBucket]:
    """Members that can be stepped together, together, in the order in which they first appear."""
    together: dict[tuple[Any, ...], list[_Member]] = {}
    for member in members:
        key: tuple[Any, ...] = (member.group, member.kernel, member.param.device, member.param.dtype, member.reason)
        capturable = groups[member.group]["capturable"]
        # A capturable counter lies on the device, where its value is not looked at: each parameter has its own.
        key += (id(member.param),) if capturable else (steps_taken(member.state),)
        together.setdefault(key, []).append(member)
    for (index, kernel, device, *_), alike in together.items():
        group = groups[index]
        if group["capturable"]:
            counter = DeviceCounter(alike[0].state.get("step", 0), device)
        else:
            counter = StepCounter(steps_taken(alike[0].state), len(alike))
        for member, view in zip(alike, counter.views, strict=True):
            member.state["step"] = view
        bucket = Bucket(
            params=[member.param for member in alike],
            states=[member.state for member in alike],
            amsgrad=bool(group["amsgrad"]),
            foreach=_foreach(group, device),
            differentiable=bool(group["differentiable"]),
        )
        module = KERNELS[kernel]
        yield PlannedBucket(index, module, alike[0].reason, bucket, counter, module.prepare(bucket))


def _foreach(group: Group, device: torch.device) -> bool:
    """Whether `eager` takes all tensors at once: where asked to, and on accelerators, whose launches cost."""
    if group["differentiable"] or group["capturable"]:
        return False
    return bool(group["foreach"]) if group["foreach"] is not None else device.type in ("cuda", "xpu")
