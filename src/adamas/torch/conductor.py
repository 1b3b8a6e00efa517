"""One step, from gradients to counts, for `step()` and for steps in backward.

take      the kernels check every tensor and take the gradients; nothing is written
norm      the global norm of the gradients, where clipping or skipping needs it
verdict   whether to skip the step: a bool, or a tensor where only the device knows
factor    the factor of the gradients that undoes a loss scale and clips the norm
due       the scalars of each bucket's step
commit    states, weights, moments, averages and counts are written, all or nothing
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from adamas.kernels import extension, gradient
from adamas.kernels.bucket import MismatchError
from adamas.options import check_allowed
from adamas.scalars import check_max_norm, grad_factor
from adamas.state.format import unapplied
from adamas.state.shards import is_flat_shard
from adamas.torch.dispatch import choose_for
from adamas.torch.groups import Group, check
from adamas.torch.plan import Groups, Plan, States
from adamas.uninterrupted import Uninterrupted


@dataclass(slots=True, eq=False, repr=False)
class Order:
    """The instructions for one step that are not in the groups."""

    max_norm: float | None = None  # the limit of the gradients' norm; None for no limit
    skip_nonfinite: bool = False  # whether a norm that is inf or NaN skips the step
    scale: Any = None  # the scale of the loss, a number or a tensor; None for 1
    found_inf: Any = None  # a loss scaler's verdict, not 0 after an overflow; None without a scaler
    unscale: bool = False  # whether to divide the gradients by `scale` in place
    zero_in_place: bool = False  # whether to fill the gradients with zeros after the step
    earlier_norm: Any = None  # an earlier backward's norm, which clips where it is finite; None for the present norm
    one_device: bool = True  # whether all parameters of the optimizer lie on one device; otherwise the host decides
    begun: bool = False  # whether averages of other parameters began at an earlier step

    @property
    def may_skip(self) -> bool:
        """Whether the step can be skipped."""
        return self.skip_nonfinite or self.found_inf is not None

    @property
    def measures(self) -> bool:
        """Whether the step needs the norm of the gradients."""
        return self.max_norm is not None or self.skip_nonfinite


class Taken(NamedTuple):
    """The result of a step, and the values that later steps use."""

    plan: Plan | None  # the plan of the step, to keep for the next one; None where it cannot be used again
    squares: list[Any]  # the sums of the gradients' squares; empty where no norm was needed
    norm: Any  # the norm of the gradients with the loss scale undone; None where it was not needed
    skip: Any  # whether the step was skipped: a bool, or a 0-d tensor where only the device knows


class Conductor:
    """Takes the steps of one optimizer, and keeps the plan, the norm and the number of skipped steps between them."""

    def __init__(self, max_norm: float | None, skip_nonfinite: bool) -> None:
        self.limit(max_norm, skip_nonfinite)
        self.plan: Plan | None = None  # the plan of the last step of all parameters
        self.norm: Any = None  # the norm of the last step's gradients
        self.skipped: Any = 0  # the number of skipped steps
        self.swapped = False  # whether the weights are their averages now
        self.release: Any = None  # the handle of `release_gradients`, while backward steps
        self._lock = threading.RLock()
        self._stepping = self._told = False

    def __reduce__(self) -> Any:
        """Copy and pickle only the limits, because wrappers copy all attributes of an optimizer."""
        return Conductor, (self.max_norm, self.skip_nonfinite)

    def limit(self, max_norm: float | None, skip_nonfinite: bool) -> None:
        """Set the limits of the next steps, or raise ValueError where a value is not allowed."""
        check_max_norm(max_norm)
        check_allowed({"skip_nonfinite": skip_nonfinite})
        self.max_norm, self.skip_nonfinite = max_norm, bool(skip_nonfinite)
        self.plan = None  # making a new plan checks the limits against the groups

    def step(self, groups: Groups, states: States, order: Order) -> None:
        """Step all parameters, and keep the plan and the norm."""
        plan, self.plan = self.plan, None  # a step that fails must not keep its gradients alive in the plan
        taken = self.take(plan, groups, states, order)
        self.norm, self.plan = taken.norm, taken.plan
        self.tell(groups)

    def take(self, old: Plan | None, groups: Groups, states: States, order: Order) -> Taken:
        """Take one step of the parameters of these groups, after the step of another thread.

        The old plan, of an earlier step of the same groups, is used again if it still holds.

        Raises:
            RuntimeError: the call comes from inside a step of the same thread.
        """
        with self._lock:
            if self._stepping:
                raise RuntimeError("step() inside step(): the first one is not done yet")
            self._stepping = True
            try:
                return self._take(old, groups, states, order)
            finally:
                self._stepping = False

    def _take(self, old: Plan | None, groups: Groups, states: States, order: Order) -> Taken:
        plan = self._planned(old, groups, states, order)
        if self.release is None and old is None and plan.only_begins(groups, states):
            plan.commit(states)
            plan.release(order.zero_in_place)
            return Taken(plan, [], None, False)
        on_device = plan.on_device and order.one_device
        scale, found_inf = order.scale, order.found_inf
        if not on_device:
            scale = 1.0 if scale is None else float(scale)
            found_inf = None if found_inf is None else float(found_inf)
        else:
            scale = 1.0 if scale is None else plan.at_home(scale)
        squares = plan.squares() if order.measures else []
        norm = gradient.global_norm(squares, scale, on_device) if order.measures else None
        skip = order.may_skip and gradient.unfit(norm if order.skip_nonfinite else None, found_inf)
        if skip is True:
            self.skipped = gradient.counted(self.skipped, skip)
            plan.release(order.zero_in_place)
            return Taken(plan if plan.committed else None, squares, norm, skip)
        clip_by = norm if order.earlier_norm is None else gradient.finite(order.earlier_norm, norm, on_device)
        factor = grad_factor(scale, clip_by, order.max_norm if order.measures else None)
        on_skip = None if skip is False else skip
        dues = plan.due(groups, factor, on_skip)
        grads = plan.gradients() if order.unscale and not order.zero_in_place else []
        with Uninterrupted():
            self.skipped = gradient.counted(self.skipped, skip)
            plan.commit(states)
            plan.step(dues, order.zero_in_place)
            gradient.unscale(grads, scale, on_skip)
        return Taken(plan, squares, norm, skip)

    def _planned(self, old: Plan | None, groups: Groups, states: States, order: Order) -> Plan:
        """A plan that holds, after its kernels have checked and taken the gradients. Nothing is written."""
        if old is not None and old.holds(groups, states, order.may_skip):
            try:
                old.take()
                return old
            except MismatchError:
                pass  # a tensor has moved or has another layout: a new plan adapts to it, or raises below
        for group in groups:
            check(group)
            _check_limits(group, order)
        plan = Plan(groups, states, order.may_skip, order.begun)
        plan.take()
        return plan

    def tell(self, groups: Groups) -> None:
        """Warn once where a format mostly does not apply, and where the native kernel is missing."""
        if not self._told:
            self._told = True
            trained = [([param for param in group["params"] if param.requires_grad], group) for group in groups]
            for message in (*unapplied(trained), *_slow(trained)):
                warnings.warn(message, stacklevel=6)


def _check_limits(group: dict[str, Any], order: Order) -> None:
    """Raise ValueError where clipping or skipping by the norm of the gradients here would be wrong."""
    if group["differentiable"] and order.max_norm is not None:
        raise ValueError("max_norm is not for differentiable=True: clip outside of the step, recorded")
    if order.measures and any(map(is_flat_shard, group["params"])):
        limits = "max_norm" if order.max_norm is not None else "skip_nonfinite"
        raise ValueError(
            f"{limits} with flat parameters of FullyShardedDataParallel: each process would use the norm of its own "
            f"shard. Use model.clip_grad_norm_() before step(), or fully_shard (FSDP2), and leave {limits} out"
        )


def _slow(groups: list[tuple[list[Tensor], Group]]) -> list[str]:
    """A message where parameters on the CPU are stepped slowly for lack of the native kernel."""
    missing = extension.missing
    reasons = {choose_for(param, group).reason for params, group in groups for param in params} if missing else set()
    if missing not in reasons:
        return []
    return [f"{missing}, so steps on the CPU run in torch operations, several times slower: see `adamas doctor`"]
