"""The step inside of backward: a gradient is used as soon as it is complete, and freed.

Only one gradient is in memory at a time then, instead of all: 2 B a parameter less for bfloat16, 4 for float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adamas.kernels import gradient
from adamas.kernels.bucket import MismatchError
from adamas.scalars import grad_factor
from adamas.torch.groups import Group, check
from adamas.torch.plan import Plan
from adamas.torch.state import State

if TYPE_CHECKING:
    from adamas.torch.optimizer import Adam


def release_gradients(model: nn.Module, optimizer: Adam, *, grad_scaler: Any = None) -> Release:
    """Step each parameter of `optimizer` in backward, as soon as its gradient is complete, and free the gradient.

    Differs from stepping after backward in what needs all gradients at once:

    - `max_norm` clips by the global norm of the backward *before*; in the first one each parameter is clipped alone.
    - `skip_nonfinite` skips the parameters whose gradients hold an inf or a NaN, since others have stepped already;
      `skipped_steps` counts each of them. `grad_scaler` does likewise, and learns of the overflow.
    - Step hooks do not see these steps, and `clip_grad_norm_` after backward finds nothing to clip.

    Tied parameters step once, when all their uses have contributed. Keep calling `optimizer.step()`: schedulers count
    it, and it steps whatever has a gradient still. A second backward through a retained graph fails with autograd's
    error that a tensor was modified.

    Args:
        model: whose parameters the optimizer steps.
        optimizer: its `max_norm`, `skip_nonfinite` and groups stay in force, and may change.
        grad_scaler: a `torch.amp.GradScaler` that scales the loss; `scaler.step(optimizer)` and `scaler.update()` stay.

    Returns:
        A handle: `remove()` ends it, `accumulate()` is for all backwards but the last of an accumulation.

    Raises:
        ValueError: the model reduces its gradients after they are complete (DistributedDataParallel, FSDP), it lacks a
            parameter of the optimizer, the optimizer is differentiable, or it releases gradients already.

    Example:
        >>> from adamas.torch import AdamW
        >>> model = nn.Linear(2, 2)
        >>> optimizer = AdamW(model.parameters())
        >>> handle = release_gradients(model, optimizer)
        >>> with handle.accumulate():  # all but the last
        ...     model(torch.ones(1, 2)).sum().backward()
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad is None, float(optimizer.state[model.weight]["step"])
        (True, 1.0)
        >>> handle.remove()
    """
    return Release(model, optimizer, grad_scaler)


class Release:
    """What `release_gradients` returns: it holds until `remove`.

    Args:
        model: as there.
        optimizer: as there.
        grad_scaler: as there.
    """

    def __init__(self, model: nn.Module, optimizer: Adam, grad_scaler: Any = None) -> None:
        _check(model, optimizer)
        self._optimizer, self._scaler = optimizer, grad_scaler
        self._plans: dict[Tensor, Plan] = {}
        self._paused = False
        self._backward = -1  # autograd's number of the backward that steps
        self._squares: list[Any] = []  # of the gradients of this backward so far
        self._overflow: list[Any] = []  # whether a parameter was skipped in it
        self._norm: Any = None  # of the backward before, while that was finite
        self._hooks = [
            param.register_post_accumulate_grad_hook(self._stepper(index, place))
            for index, group in enumerate(optimizer.param_groups)
            for place, param in enumerate(group["params"])
            if param.requires_grad
        ]
        optimizer._release = self

    def remove(self) -> None:
        """Let gradients stay again, for `optimizer.step()` to use."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._plans = [], {}
        if self._optimizer._release is self:
            self._optimizer._release = None

    @contextmanager
    def accumulate(self) -> Generator[None]:
        """Within this context backward only adds to the gradients; the next one outside of it steps with the sums."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @property
    def scales_loss(self) -> bool:
        """Whether it undoes a loss scaler's factor."""
        return self._scaler is not None

    def _stepper(self, index: int, place: int) -> Any:
        """The hook of a parameter: its group's number, and its own in it."""

        def step(param: Tensor) -> None:
            if not self._paused and param.grad is not None:
                self._step(param, index, place)

        return step

    @torch.no_grad()
    def _step(self, param: Tensor, index: int, place: int) -> None:
        optimizer = self._optimizer
        if optimizer._swapped:
            raise RuntimeError("backward inside averaged() would step averages. Leave it first, or remove the release")
        backward = torch._C._current_graph_task_id()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        if backward != self._backward:  # also after one that failed, which finished nothing
            self._backward, self._squares, self._overflow = backward, [], []
            torch.autograd.Variable._execution_engine.queue_callback(self._finish)  # pyright: ignore
        group = _group_of_one(optimizer.param_groups[index], param, place)
        states: defaultdict[Tensor, State] = defaultdict(dict, {param: optimizer.state[param]})
        may_skip = optimizer.skip_nonfinite or self._scaler is not None
        plan = self._ready(param, group, states, may_skip)
        measured = may_skip or optimizer.max_norm is not None
        squares = plan.squares() if measured else []
        scale = self._scale(plan.on_device)
        own = gradient.global_norm(squares, scale, plan.on_device) if measured else None
        skip = gradient.unfit(own if may_skip else None, None)
        optimizer._skipped = gradient.counted(optimizer._skipped, skip)
        self._squares += squares
        self._overflow.append(skip)
        if skip is True:
            plan.release(zero_in_place=False)
        else:
            factor = grad_factor(scale, own if self._norm is None else self._norm, optimizer.max_norm)
            due = [plan.due(bucket, group, factor, None if skip is False else skip) for bucket in plan.buckets]
            plan.commit(states)
            plan.step(due, zero_in_place=False)
        self._plans[param] = plan
        param.grad = None

    def _ready(self, param: Tensor, group: Group, states: defaultdict[Tensor, State], may_skip: bool) -> Plan:
        """The parameter's plan, if it still holds, or a new one, with the gradient taken."""
        plan = self._plans.pop(param, None)
        if plan is not None and plan.committed and plan.holds([group], states, may_skip):
            try:
                plan.buckets[0].take()
                return plan
            except MismatchError:
                pass  # moved or laid out anew
        check(group)
        plan = Plan([group], states, may_skip)
        for bucket in plan.buckets:
            bucket.take()
        return plan

    def _scale(self, on_device: bool) -> Any:
        if self._scaler is None or not self._scaler.is_enabled():
            return 1.0
        scale = self._scaler._get_scale_async()
        if scale is None:
            raise RuntimeError("release_gradients has a grad_scaler, but the loss was not scaled: scaler.scale(loss)")
        return scale if on_device else float(scale)

    def _finish(self) -> None:
        """At the end of a backward: its norm, and for the scaler whether there was an overflow."""
        optimizer = self._optimizer
        if self._squares:
            tensors = [x for x in self._squares if isinstance(x, Tensor)]
            on_device = bool(tensors) and len({x.device for x in tensors}) == 1 and tensors[0].device.type != "cpu"
            norm = gradient.global_norm(self._squares, self._scale(on_device), on_device)
            optimizer._norm = norm
            if isinstance(norm, Tensor):
                fit = torch.isfinite(norm)
                self._norm = norm if self._norm is None else torch.where(fit, norm, self._norm)
            elif math.isfinite(norm):
                self._norm = norm
        if self._scaler is not None and self._scaler.is_enabled() and self._overflow:
            self._tell_scaler(gradient.any_of(self._overflow))

    def _tell_scaler(self, overflow: Any) -> None:
        """What `scaler.unscale_` would have found: scaler.step then goes on as after it."""
        from torch.amp.grad_scaler import OptState

        found = torch.as_tensor(overflow, dtype=torch.float32).reshape(())
        state = self._scaler._per_optimizer_states[id(self._optimizer)]
        state["found_inf_per_device"] = {found.device: found}
        state["stage"] = OptState.UNSCALED


def _check(model: nn.Module, optimizer: Adam) -> None:
    name = type(model).__name__
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ValueError(f"{name} adds up gradients of several processes after they are complete here: step after it")
    mine = {param for group in optimizer.param_groups for param in group["params"]}
    if any(type(param) not in (Tensor, nn.Parameter) for param in mine):
        raise ValueError("a parameter is a tensor subclass (DTensor), whose gradient is reduced later: step after that")
    foreign = mine - set(model.parameters())
    if foreign:
        shapes = ", ".join(str(tuple(param.shape)) for param in list(foreign)[:3])
        raise ValueError(f"{len(foreign)} parameters of the optimizer (shapes {shapes}) are not the model's")
    if any(group["differentiable"] for group in optimizer.param_groups):
        raise ValueError("differentiable=True records steps, and backward cannot record itself: step after it")
    if optimizer._release is not None:
        raise ValueError("this optimizer releases its gradients already: call remove() of that handle first")


def _group_of_one(group: Group, param: Tensor, place: int) -> Group:
    """A group with all its values, of one parameter."""
    alone = {**group, "params": [param]}
    if "param_names" in group:
        alone["param_names"] = [group["param_names"][place]]
    return alone
