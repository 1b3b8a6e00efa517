"""The step inside of backward: a gradient is used as soon as it is complete, and freed.

Only one gradient is in memory at a time then, instead of all: 2 B a parameter less for bfloat16, 4 for float32.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.optim import Optimizer

from adamas.kernels import gradient
from adamas.state.layout import ORDINARY
from adamas.torch.conductor import Conductor, Order
from adamas.torch.groups import Group, name_of
from adamas.torch.plan import Plan, States

REDUCING = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def release_gradients(model: nn.Module, optimizer: Optimizer, *, grad_scaler: Any = None) -> Release:
    """Step each parameter of `optimizer` in backward, as soon as its gradient is complete, and free the gradient.

    Keep calling `optimizer.step()` after backward: schedulers count it, it steps whatever has a gradient still, and
    lets the moving averages of parameters that had none go on. Then training equals that with steps after backward,
    bit for bit, save for what needs all gradients at once:

    - `max_norm` clips by the global norm of the backward *before*, as long as that was finite. Where there is none (the
      first one, after loading a state, after setting `max_norm`) each parameter is clipped by its own.
    - `skip_nonfinite` skips the parameters whose gradients hold an inf or a NaN, since others have stepped already;
      `skipped_steps` counts each of them. `grad_scaler` does likewise, and learns of the overflow.
    - Step hooks do not see these steps, and `clip_grad_norm_` after backward finds nothing to clip.

    Tied parameters step once, when all their uses have contributed. A second backward through a retained graph fails
    with autograd's error that a tensor was modified. A backward that fails has stepped the parameters that it reached.

    Args:
        model: whose parameters the optimizer steps. Pass the outermost module, so that DistributedDataParallel is seen.
        optimizer: its `max_norm`, `skip_nonfinite` and groups stay in force, and may change.
        grad_scaler: a `torch.amp.GradScaler` that scales the loss; `scaler.step(optimizer)` and `scaler.update()` stay.

    Returns:
        A handle: `remove()` ends it, `accumulate()` is for all backwards but the last of an accumulation.

    Raises:
        ValueError: the model reduces its gradients after they are complete (DistributedDataParallel, FSDP), it lacks a
            parameter of the optimizer, the optimizer is differentiable, or gradients are released already.
        TypeError: an optimizer that is not from Adamas.
        RuntimeError: in backward, where a process group has several processes, inside `averaged()`, or of
            `checkpoint(..., use_reentrant=True)`, whose backwards inside of backward may complete a gradient in several
            parts.

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
    """What `release_gradients` returns: it holds until `remove`, or until the optimizer is gone.

    Args:
        model: as there.
        optimizer: as there.
        grad_scaler: as there.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, grad_scaler: Any = None) -> None:
        _check(model, optimizer)
        self._optimizer, self._scaler = optimizer, grad_scaler
        self._conductor: Conductor = optimizer._conductor  # pyright: ignore - of both of our classes
        self._plans: dict[Tensor, Plan] = {}
        self._paused = False
        self._backward = -1  # autograd's number of the backward that steps
        self._squares: list[Any] = []  # of the gradients of this backward so far
        self._overflow: list[Any] = []  # for each step since scaler.update(), whether it was skipped
        self._norm: Any = None  # of the backward before
        self._coming: Any = None  # of the last one that ended, for the next
        self._seen: set[Tensor] = set()  # stepped or skipped since `optimizer.step()` was called
        self._begun: set[int] = set()  # groups that had averages then
        self._single = True  # whether all parameters lie on one device
        self._places: dict[Tensor, tuple[int, int]] = {}
        self._hooks: list[Any] = []
        self._hook = _Hook(self)
        for index in range(len(optimizer.param_groups)):
            self.watch(index)
        self._conductor.release = self

    @staticmethod
    def admit(group: Group) -> None:
        """Raise ValueError on a group whose steps autograd is to record."""
        if group["differentiable"]:
            raise ValueError("differentiable=True records steps, and backward cannot record itself: step after it")

    def watch(self, index: int) -> None:
        """Step the parameters of a group in backward, also those that are frozen now."""
        for place, param in enumerate(self._optimizer.param_groups[index]["params"]):
            known = param in self._places
            self._places[param] = (index, place)
            if known or type(param) not in ORDINARY:  # a subclass's gradient is reduced later: left to `step`
                continue
            requires_grad = param.requires_grad
            param.requires_grad_(True)  # torch takes hooks of no other, but keeps them
            self._hooks.append(param.register_post_accumulate_grad_hook(self._hook))
            param.requires_grad_(requires_grad)

    def remove(self) -> None:
        """Let gradients stay again, for `optimizer.step()` to use."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.forget()
        if self._conductor.release is self:
            self._conductor.release = None

    def forget(self) -> None:
        """The optimizer's state is another now: let go what belonged to the old one."""
        self._plans, self._norm, self._coming = {}, None, None

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
        return self._scaler is not None and self._scaler.is_enabled()

    def complete(self, param: Tensor) -> None:
        """A parameter's gradient is complete: step, and free it. Also where that fails: the next one is not added."""
        place = None if self._paused or param.grad is None else self._place(param)
        if place is None:
            return
        try:
            if self._conductor.swapped:
                raise RuntimeError(
                    "backward inside averaged() would step averages. Leave it first, or remove the release"
                )
            self._begin()
            self._step(param, *place)
        finally:
            param.grad = None

    def close(self, scaled: bool) -> bool:
        """At `optimizer.step()`: step what has a gradient still, and let the averages of the others go on.

        Args:
            scaled: whether a loss scaler calls.

        Returns:
            False where backward stepped nothing since the last call: everything is left to an ordinary step.

        Raises:
            RuntimeError: the loss was scaled, and backward did not know.
        """
        if not self._seen:
            return False
        try:
            if scaled and not self.scales_loss:
                raise RuntimeError(
                    "a loss scaler steps this optimizer, but backward stepped it already, with scaled gradients: "
                    "release_gradients(model, optimizer, grad_scaler=scaler)"
                )
            left = False
            for index, group in enumerate(self._optimizer.param_groups):
                averages = group["ema_decay"] is not None
                for place, param in enumerate(group["params"]):
                    if param.grad is not None or (averages and param not in self._seen):
                        left = left or param.grad is not None
                        self._step(param, index, place)
                        param.grad = None
            if left:
                self._finish()
        finally:
            self._seen.clear()
        return True

    def _place(self, param: Tensor) -> tuple[int, int] | None:
        """The number of a parameter's group, and its own in it; None where it was taken out of all groups."""
        groups = self._optimizer.param_groups
        index, place = self._places[param]
        if index < len(groups) and place < len(groups[index]["params"]) and groups[index]["params"][place] is param:
            return index, place
        for index, group in enumerate(groups):
            for place, each in enumerate(group["params"]):
                if each is param:
                    self._places[param] = (index, place)
                    return index, place
        return None

    def _begin(self) -> None:
        """At the first step of a backward, also after one that failed, which finished nothing."""
        backward = torch._C._current_graph_task_id()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        if backward == self._backward:
            return
        _check_alone()
        self._conductor.tell(self._optimizer.param_groups)
        if _inside_backward():
            raise RuntimeError(
                "release_gradients does not step in a backward inside of backward, which may complete a gradient in "
                "several parts: checkpoint(..., use_reentrant=False), or accumulate() around backward and then step()"
            )
        self._backward, self._squares, self._norm = backward, [], self._coming
        torch.autograd.Variable._execution_engine.queue_callback(self._finish)  # pyright: ignore
        if self.scales_loss and self._scaler_state()["stage"].name == "READY":
            self._overflow = []
            self._seen.clear()  # scaler.update() was called, though after an overflow not step()
        if self._seen:
            return
        optimizer = self._optimizer
        self._single = len({param.device for group in optimizer.param_groups for param in group["params"]}) == 1
        self._begun = {
            index
            for index, group in enumerate(optimizer.param_groups)
            if group["ema_decay"] is not None and any("ema" in optimizer.state.get(p, {}) for p in group["params"])
        }

    @torch.no_grad()
    def _step(self, param: Tensor, index: int, place: int) -> None:
        """Step a parameter, or skip it; without a gradient only its average goes on."""
        optimizer, conductor = self._optimizer, self._conductor
        self._seen.add(param)
        group = _group_of_one(optimizer.param_groups[index], param, place)
        has_gradient = param.grad is not None
        order = Order(
            max_norm=conductor.max_norm if has_gradient else None,
            skip_nonfinite=has_gradient and (conductor.skip_nonfinite or self.scales_loss),
            scale=self._scale(),
            earlier_norm=self._norm,
            one_device=self._single,
            begun=index in self._begun,
        )
        mine = optimizer.state[param]
        states: States = defaultdict(dict, {param: mine})
        try:
            taken = conductor.take(self._plans.pop(param, None), [group], states, order)
        finally:
            if not mine:
                del optimizer.state[param]  # a step that was skipped, or failed, begins no state
        self._squares += taken.squares
        self._overflow += [taken.skip] if self.scales_loss else []
        if taken.plan is not None:
            self._plans[param] = taken.plan

    def _scale(self) -> Any:
        """The scale of the loss, where the scaler has it; None without a scaler."""
        if not self.scales_loss:
            return None
        scale = self._scaler._get_scale_async()
        if scale is None:
            raise RuntimeError("release_gradients has a grad_scaler, but the loss was not scaled: scaler.scale(loss)")
        return scale

    def _finish(self) -> None:
        """At the end of a backward: its norm, and for the scaler whether there was an overflow."""
        on_device = self._single and any(isinstance(x, Tensor) and x.device.type != "cpu" for x in self._squares)
        scale = self._scale()
        scale = 1.0 if scale is None else scale if on_device else float(scale)
        norm = gradient.global_norm(self._squares, scale, on_device) if self._squares else None
        self._conductor.norm = norm
        self._coming = None if norm is None else gradient.finite(norm, self._norm, on_device)
        if self.scales_loss and self._overflow:
            self._tell_scaler(gradient.any_of(self._overflow))

    def _tell_scaler(self, overflow: Any) -> None:
        """What `scaler.unscale_` would have found: scaler.step then goes on as after it."""
        from torch.amp.grad_scaler import OptState

        found = torch.as_tensor(overflow, dtype=torch.float32).reshape(())
        self._scaler_state().update(stage=OptState.UNSCALED, found_inf_per_device={found.device: found})

    def _scaler_state(self) -> dict[str, Any]:
        return self._scaler._per_optimizer_states[id(self._optimizer)]


class _Hook:
    """What parameters call. It does not keep the release alive, for torch hides hooks from the garbage collector."""

    def __init__(self, release: Release) -> None:
        self.release = weakref.ref(release)

    def __call__(self, param: Tensor) -> None:
        release = self.release()
        if release is not None:
            release.complete(param)


def _check(model: nn.Module, optimizer: Optimizer) -> None:
    if not isinstance(getattr(optimizer, "_conductor", None), Conductor):
        raise TypeError(f"release_gradients steps Adam and AdamW of adamas.torch, not {type(optimizer).__name__}")
    names = {type(module).__name__ for module in model.modules()}
    reducing = next((name for name in REDUCING if name in names), None)
    if reducing is not None:
        raise ValueError(
            f"{reducing} adds up gradients of several processes after they are complete here: step after it"
        )
    mine = {param for group in optimizer.param_groups for param in group["params"]}
    if any(type(param) not in ORDINARY for param in mine):
        raise ValueError("a parameter is a tensor subclass (DTensor), whose gradient is reduced later: step after that")
    foreign = mine - set(model.parameters())
    if foreign:
        shapes = ", ".join(str(tuple(param.shape)) for param in list(foreign)[:3])
        raise ValueError(f"{len(foreign)} parameters of the optimizer (shapes {shapes}) are not the model's")
    for group in optimizer.param_groups:
        Release.admit(group)
    if optimizer._conductor.release is not None:  # pyright: ignore
        raise ValueError("this optimizer releases its gradients already: call remove() of that handle first")
    if any(map(_is_released, mine)):
        gc.collect()  # an optimizer that nobody has any more, as when a notebook's cell runs again, is no obstacle
    if any(map(_is_released, mine)):
        raise ValueError("another optimizer steps a parameter in backward already: call remove() of its handle first")


def _check_alone() -> None:
    """Raise RuntimeError in one of several processes: nothing here adds up their gradients before they are used."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"release_gradients in one of {distributed.get_world_size()} processes: each would step with its own "
            "gradients, and the replicas would diverge. Wrap the model in DistributedDataParallel or FSDP, and step "
            "after backward"
        )


def _is_released(param: Tensor) -> bool:
    hooks = getattr(param, "_post_accumulate_grad_hooks", None) or {}
    return any(isinstance(hook, _Hook) and hook.release() is not None for hook in hooks.values())


def _inside_backward() -> bool:
    """Whether this backward was called by an autograd function's: `checkpoint` does so with use_reentrant=True."""
    frame, apply = sys._getframe(1), BackwardCFunction.apply.__code__
    while frame is not None and frame.f_code is not apply:
        frame = frame.f_back
    return frame is not None


def _group_of_one(group: Group, param: Tensor, place: int) -> Group:
    """A group with all its values, of one parameter."""
    return {**group, "params": [param], "param_names": [name_of(group, place, f"parameter {place}")]}
