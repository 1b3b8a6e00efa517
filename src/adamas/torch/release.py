"""Steps inside of backward: each gradient is used as soon as it is complete, and freed.

Memory then holds one gradient at a time: 2 bytes a parameter less for bfloat16, 4 less for float32.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.optim import Optimizer

from adamas.kernels import gradient
from adamas.state.layout import ORDINARY
from adamas.torch import outside_clipping
from adamas.torch.conductor import Conductor, Order
from adamas.torch.groups import Group, name_of
from adamas.torch.plan import Plan, States
from adamas.torch.wrappers import is_accelerated, unwrapped

REDUCING = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def release_gradients(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    grad_scaler: Any = None,
    accumulating: Callable[[], bool] | None = None,
) -> Release:
    """Step each parameter in backward, as soon as its gradient is complete, and free the gradient.

    Call `optimizer.step()` after backward, as without. It counts for schedulers, steps the parameters that still have
    a gradient, updates the moving averages of those that had none, and ends the turn in which backward may step each
    parameter once. Training then equals training with steps after backward, bit for bit, except where all gradients
    are needed at once:

    - `max_norm` clips by the global norm of the backward *before*, if that was finite. Where there is none (at first,
      after loading a state, after setting `max_norm`), each parameter is clipped by its own norm.
    - `skip_nonfinite` skips only the parameters with an inf or a NaN in their gradients, because others have stepped
      already. `skipped_steps` counts each of them. A `grad_scaler` skips in the same way, and learns of the overflow.
    - Step hooks do not see these steps.
    - `torch.nn.utils.clip_grad_norm_` has nothing to clip. Where the optimizer's `max_norm` is at most its limit, it
      returns the norm that the optimizer measured. Otherwise it raises, and so does `clip_grad_value_`.

    Tied parameters step once, after all their uses have contributed. A second backward through a retained graph fails
    with autograd's error that a tensor was modified. After a backward that fails, the parameters that it reached have
    been stepped.

    Args:
        model: the module with the optimizer's parameters. Give the outermost one, so that DistributedDataParallel is
            noticed.
        optimizer: an Adam or AdamW of Adamas. Its `max_norm`, `skip_nonfinite` and groups may still change. Accelerate
            tells through the optimizer that `accelerator.prepare` returned when it accumulates, and by what it scales.
        grad_scaler: the `torch.amp.GradScaler` that scales the loss. Keep calling `scaler.step(optimizer)` and
            `scaler.update()`.
        accumulating: is called in each backward, and returns whether this backward only adds to the gradients; for
            trainers that accumulate by themselves. A loop of your own can use `accumulate()` instead.

    Returns:
        A handle: `remove()` ends the release; `accumulate()` is for all backwards but the last of an accumulation.

    Raises:
        ValueError: the model reduces its gradients after they are complete (DistributedDataParallel, FSDP), it lacks a
            parameter of the optimizer, the optimizer is differentiable, or its gradients are released already.
        TypeError: the optimizer is not from Adamas.
        RuntimeError: at a backward that runs in one of several processes, inside `averaged()`, or inside of another
            backward (`checkpoint(..., use_reentrant=True)`, which may complete a gradient in several parts), or that
            reaches a parameter a second time without `optimizer.step()` in between, as accumulation without
            `accumulate()` does. At `optimizer.step()`, if backward cannot have stepped the right gradients, because
            the model was wrapped in DistributedDataParallel or FSDP after this call.

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
    return Release(model, optimizer, grad_scaler, accumulating)


class Release:
    """The handle that `release_gradients` returns, with the same arguments; it works until `remove`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        grad_scaler: Any = None,
        accumulating: Callable[[], bool] | None = None,
    ) -> None:
        if is_accelerated(optimizer):
            wrapper: Any = optimizer
            state, scaler = wrapper.gradient_state, wrapper.scaler
            grad_scaler = scaler if grad_scaler is None else grad_scaler
            accumulating = accumulating or (lambda: not state.sync_gradients)
        optimizer = unwrapped(optimizer)
        _check(model, optimizer)
        self._optimizer, self._scaler, self._accumulating = optimizer, grad_scaler, accumulating
        self._model = weakref.ref(model)
        self._conductor: Conductor = optimizer._conductor  # pyright: ignore - of both of our classes
        self._plans: dict[Tensor, Plan] = {}
        self._paused = False
        self._backward = -1  # autograd's number of the present backward
        self._ended = True  # whether the last backward ran to its end
        self._squares: list[Any] = []  # the sums of squares of this backward's gradients so far
        self._overflow: list[Any] = []  # for each step since scaler.update(), whether it was skipped
        self._norm: Any = None  # the norm of the backward before this one, which clips
        self._coming: Any = None  # the norm of the last backward that ended, which clips in the next
        self.seen: set[Tensor] = set()  # the parameters stepped or skipped since the last `optimizer.step()`
        self._begun: set[int] = set()  # the groups that had averages at that time
        self._single = True  # whether all parameters lie on one device
        self._places: dict[Tensor, tuple[int, int]] = {}  # the numbers of each parameter's group and place in it
        self._hooks: list[Any] = []
        self._hook = _Hook(self)
        for index in range(len(optimizer.param_groups)):
            self.watch(index)
        self._conductor.release = self
        outside_clipping.answer_for(self)

    @staticmethod
    def admit(group: Group) -> None:
        """Raise ValueError on a differentiable group."""
        if group["differentiable"]:
            raise ValueError("differentiable=True records steps, and backward cannot record itself: step after it")

    def watch(self, index: int) -> None:
        """Step the parameters of a group in backward, including those that are frozen now."""
        for place, param in enumerate(self._optimizer.param_groups[index]["params"]):
            known = param in self._places
            self._places[param] = (index, place)
            if known or type(param) not in ORDINARY:  # a subclass may reduce its gradient later: `step` steps it
                continue
            requires_grad = param.requires_grad
            param.requires_grad_(True)  # torch requires it to add a hook, but not to keep one
            self._hooks.append(param.register_post_accumulate_grad_hook(self._hook))
            param.requires_grad_(requires_grad)

    def remove(self) -> None:
        """End the release: `optimizer.step()` uses all gradients again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.forget()
        outside_clipping.leave(self)
        if self._conductor.release is self:
            self._conductor.release = None

    def forget(self) -> None:
        """Drop the plans and norms of a state that has been replaced."""
        self._plans, self._norm, self._coming = {}, None, None

    @contextmanager
    def accumulate(self) -> Generator[None]:
        """A context in which backward only adds to the gradients. The next backward outside steps with the sums."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @property
    def clips_to(self) -> float | None:
        """The limit of the norm to which backward clips; None where it does not clip."""
        return self._conductor.max_norm

    @property
    def norm(self) -> Any:
        """The norm of the last backward's gradients before clipping, as a number or a tensor."""
        return self._conductor.norm

    @property
    def scales_loss(self) -> bool:
        """Whether steps in backward undo the scale of a loss scaler."""
        return self._scaler is not None and self._scaler.is_enabled()

    def complete(self, param: Tensor) -> None:
        """Step a parameter with its complete gradient, and free the gradient, also where the step fails."""
        place = None if self._paused or param.grad is None else self._place(param)
        if place is None or (self._accumulating is not None and self._accumulating()):
            return
        try:
            if self._conductor.swapped:
                raise RuntimeError(
                    "backward inside averaged() would step averages. Leave it first, or remove the release"
                )
            self._begin()
            if param in self.seen:
                raise RuntimeError(
                    f"backward stepped {self._name(*place)} already, and optimizer.step() was not called since. To "
                    "accumulate gradients, run all backwards but the last inside `with handle.accumulate():` of the "
                    "handle that release_gradients returned. Otherwise call optimizer.step() after each backward"
                )
            self._step(param, *place)
        finally:
            param.grad = None

    def close(self, scaled: bool) -> bool:
        """At `optimizer.step()`, step the parameters that still have a gradient, and update the others' averages.

        Returns:
            False where backward stepped nothing since the last call, so that an ordinary step has to do everything.

        Raises:
            RuntimeError: a loss scaler calls `optimizer.step()`, but the release has none, or the model was wrapped
                after the release.
        """
        if not self.seen:
            _check_alone()
            model = self._model()
            if model is not None:
                _check_has_all(model, self._optimizer)
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
                    if param.grad is not None and param in self.seen:
                        raise RuntimeError(
                            f"backward stepped {self._name(index, place)} already, and it has a gradient again: "
                            "DistributedDataParallel, wrapped around the model after release_gradients, or a backward "
                            "inside accumulate() that came after another. Step after backward with "
                            "DistributedDataParallel; accumulate all backwards but the last"
                        )
                    if param.grad is not None or (averages and param not in self.seen):
                        left = left or param.grad is not None
                        self._step(param, index, place)
                        param.grad = None
            if left:
                self._finish()
        finally:
            self.seen.clear()
        return True

    def _place(self, param: Tensor) -> tuple[int, int] | None:
        """The numbers of a parameter's group and of its place there; None where no group has it any more."""
        groups = self._optimizer.param_groups
        index, place = self._places[param]
        if index < len(groups) and place < len(groups[index]["params"]) and groups[index]["params"][place] is param:
            return index, place
        places = ((i, j) for i, group in enumerate(groups) for j, each in enumerate(group["params"]) if each is param)
        found = next(places, None)
        if found is not None:
            self._places[param] = found
        return found

    def _name(self, index: int, place: int) -> str:
        return name_of(self._optimizer.param_groups[index], place, f"parameter {place} of group {index}")

    def _begin(self) -> None:
        """Prepare for a new backward at its first step."""
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
        if not self._ended:
            self.seen.clear()  # the backward before this one failed, so that the loop may not have called step()
        self._backward, self._ended, self._squares, self._norm = backward, False, [], self._coming
        torch.autograd.Variable._execution_engine.queue_callback(self._finish)  # pyright: ignore
        if self.scales_loss and self._scaler_state()["stage"].name == "READY":
            self._overflow = []
            self.seen.clear()  # scaler.update() was called; after an overflow the scaler does not call step()
        if self.seen:
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
        """Step a parameter, or skip it. Without a gradient, update only its average."""
        optimizer, conductor = self._optimizer, self._conductor
        self.seen.add(param)
        group: Group = optimizer.param_groups[index]
        group = {**group, "params": [param], "param_names": [name_of(group, place, f"parameter {place}")]}
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
                del optimizer.state[param]  # a step that was skipped, or failed, leaves no state behind
        self._squares += taken.squares
        self._overflow += [taken.skip] if self.scales_loss else []
        if taken.plan is not None:
            self._plans[param] = taken.plan

    def _scale(self) -> Any:
        """The scale of the loss; None without a scaler."""
        if not self.scales_loss:
            return None
        scale = self._scaler._get_scale_async()
        if scale is None:
            raise RuntimeError("release_gradients has a grad_scaler, but the loss was not scaled: scaler.scale(loss)")
        return scale

    def _finish(self) -> None:
        """At the end of a backward, compute its norm, and tell the scaler whether there was an overflow."""
        self._ended = True
        on_device = self._single and any(isinstance(x, Tensor) and x.device.type != "cpu" for x in self._squares)
        scale = self._scale()
        scale = 1.0 if scale is None else scale if on_device else float(scale)
        norm = gradient.global_norm(self._squares, scale, on_device) if self._squares else None
        self._conductor.norm = norm
        self._coming = None if norm is None else gradient.finite(norm, self._norm, on_device)
        if self.scales_loss and self._overflow:
            from torch.amp.grad_scaler import OptState

            # The entries that `scaler.unscale_` would have made, so that `scaler.step` continues from there.
            found = torch.as_tensor(gradient.any_of(self._overflow), dtype=torch.float32).reshape(())
            self._scaler_state().update(stage=OptState.UNSCALED, found_inf_per_device={found.device: found})

    def _scaler_state(self) -> dict[str, Any]:
        return self._scaler._per_optimizer_states[id(self._optimizer)]


class _Hook:
    """The hook of each parameter. It refers weakly to the release: the garbage collector cannot see torch's hooks."""

    def __init__(self, release: Release) -> None:
        self.release = weakref.ref(release)

    def __call__(self, param: Tensor) -> None:
        release = self.release()
        if release is not None:
            release.complete(param)


def _check(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise where backward cannot step the optimizer's parameters."""
    if not isinstance(getattr(optimizer, "_conductor", None), Conductor):
        raise TypeError(f"release_gradients steps Adam and AdamW of adamas.torch, not {type(optimizer).__name__}")
    names = {type(module).__name__ for module in model.modules()}
    reducing = next((name for name in REDUCING if name in names), None)
    if reducing is not None:
        raise ValueError(f"{reducing} sums gradients of several processes after they are complete here: step after it")
    mine = {param for group in optimizer.param_groups for param in group["params"]}
    if any(type(param) not in ORDINARY for param in mine):
        raise ValueError("a parameter is a tensor subclass (DTensor), and its gradient is reduced later: step after it")
    _check_has_all(model, optimizer)
    for group in optimizer.param_groups:
        Release.admit(group)
    if optimizer._conductor.release is not None:  # pyright: ignore
        raise ValueError("this optimizer releases its gradients already: call remove() of that handle first")
    if any(map(_is_released, mine)):
        gc.collect()  # remove optimizers without references, for instance after a notebook's cell runs again
    if any(map(_is_released, mine)):
        raise ValueError("another optimizer steps a parameter in backward already: call remove() of its handle first")


def _check_has_all(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise where the optimizer has parameters that the model lacks, perhaps since FSDP replaced them."""
    foreign = {param for group in optimizer.param_groups for param in group["params"]} - set(model.parameters())
    if foreign:
        shapes = ", ".join(str(tuple(param.shape)) for param in list(foreign)[:3])
        raise ValueError(
            f"{len(foreign)} parameters of the optimizer (shapes {shapes}) are not the model's: give the module that "
            "has all of them. FSDP replaces parameters: wrap first, make the optimizer afterwards, and step after "
            "backward, without release_gradients"
        )


def _check_alone() -> None:
    """Raise in one of several processes, where backward knows only its own process's gradients."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise RuntimeError(
            f"release_gradients in one of {distributed.get_world_size()} processes: each would step with its own "
            "gradients, and the replicas would diverge. Wrap the model in DistributedDataParallel or FSDP, and "
            "step after backward, without release_gradients"
        )


def _is_released(param: Tensor) -> bool:
    hooks = getattr(param, "_post_accumulate_grad_hooks", None) or {}
    return any(isinstance(hook, _Hook) and hook.release() is not None for hook in hooks.values())


def _inside_backward() -> bool:
    """Whether an autograd function's backward called this one, as `checkpoint` does with use_reentrant=True."""
    frame, apply = sys._getframe(1), BackwardCFunction.apply.__code__
    while frame is not None and frame.f_code is not apply:
        frame = frame.f_back
    return frame is not None
