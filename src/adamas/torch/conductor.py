"""One step, from gradients to counts: take, norm, verdict, factor, due, commit. Both `step()` and backward use it.

take      the kernels check every tensor and take the gradients; nothing is written
norm      the global norm of the gradients, where something needs it
verdict   whether the step is to be skipped: the host's, or a tensor where only the device knows
factor    what gradients are multiplied with: undoes a loss scale, clips the norm
due       the scalars of each bucket's step
commit    states, weights, moments, averages and counts are written, whole or not at all
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
from adamas.torch.dispatch import choose_for
from adamas.torch.groups import Group, check
from adamas.torch.plan import Groups, Plan, States
from adamas.torch.uninterrupted import Uninterrupted


@dataclass(slots=True, eq=False, repr=False)
class Order:
    """What a step is told beside the groups.

    Args:
        max_norm: the limit of the gradients' norm; None for none.
        skip_nonfinite: whether a norm that is inf or NaN skips the step.
        scale: what the loss was multiplied with, a number or a tensor.
        found_inf: a loss scaler's verdict, not 0 where it found an overflow; None without one.
        unscale: whether the gradients are left divided by `scale`.
        zero_in_place: whether the gradients are left filled with zeros.
        earlier_norm: the norm to clip by, where it is finite, instead of these gradients' own.
        one_device: whether all parameters of the optimizer lie on one device; otherwise the host decides.
        begun: whether averages of other parameters began at an earlier step.
    """

    max_norm: float | None = None
    skip_nonfinite: bool = False
    scale: Any = None
    found_inf: Any = None
    unscale: bool = False
    zero_in_place: bool = False
    earlier_norm: Any = None
    one_device: bool = True
    begun: bool = False

    @property
    def may_skip(self) -> bool:
        """Whether the step may turn out to be skipped."""
        return self.skip_nonfinite or self.found_inf is not None

    @property
    def measures(self) -> bool:
        """Whether the norm of the gradients is needed."""
        return self.max_norm is not None or self.skip_nonfinite


class Taken(NamedTuple):
    """What became of a step.

    Args:
        plan: the plan that was used, to be kept for the next step; None where it is of no more use.
        squares: the sums of the gradients' squares, where the norm was measured.
        norm: the norm of the gradients with the loss scale undone; None where nothing measured it.
        skip: whether the step was skipped: a bool, or a 0-d tensor where only the device knows.
    """

    plan: Plan | None
    squares: list[Any]
    norm: Any
    skip: Any


class Conductor:
    """Takes the steps of one optimizer, and holds what they share beside groups and state.

    Args:
        max_norm: the limit of the gradients' global norm; None for none.
        skip_nonfinite: whether steps with inf or NaN gradients are skipped.
    """

    def __init__(self, max_norm: float | None, skip_nonfinite: bool) -> None:
        self.limit(max_norm, skip_nonfinite)
        self.plan: Plan | None = None  # of the last whole step
        self.norm: Any = None  # of the last step's gradients
        self.skipped: Any = 0  # how many steps changed nothing
        self.swapped = False  # whether the weights are their averages now
        self.release: Any = None  # the handle of `release_gradients`, while backward steps
        self._lock = threading.RLock()
        self._stepping = self._told = False

    def __reduce__(self) -> Any:
        """Copies and pickles (of wrappers that hold an optimizer's attributes) begin without plan, norm and lock."""
        return Conductor, (self.max_norm, self.skip_nonfinite)

    def limit(self, max_norm: float | None, skip_nonfinite: bool) -> None:
        """Set the limits of the coming steps.

        Raises:
            ValueError: a value that is not allowed.
        """
        check_max_norm(max_norm)
        check_allowed({"skip_nonfinite": skip_nonfinite})
        self.max_norm, self.skip_nonfinite = max_norm, bool(skip_nonfinite)
        self.plan = None  # which is where limits are checked against the groups

    def step(self, groups: Groups, states: States, order: Order) -> None:
        """Step all parameters, and remember the plan, the norm and how many steps were skipped."""
        plan, self.plan = self.plan, None  # kept only if all goes well: what fails keeps no gradients
        taken = self.take(plan, groups, states, order)
        self.norm, self.plan = taken.norm, taken.plan
        self.tell(groups)

    def take(self, old: Plan | None, groups: Groups, states: States, order: Order) -> Taken:
        """Take one step of the parameters of these groups; another thread's step is waited for.

        Args:
            old: the plan of an earlier step of the same groups, used again if it still holds.
            groups: parameter groups.
            states: the states of their parameters, written to.
            order: what to do.

        Raises:
            RuntimeError: a step is under way in this thread, which called again from inside.
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
        """A plan that holds, whose kernels have checked and taken the gradients; nothing is written."""
        if old is not None and old.holds(groups, states, order.may_skip):
            try:
                old.take()
                return old
            except MismatchError:
                pass  # a tensor was moved or laid out anew: plan again, and let what is really wrong raise below
        for group in groups:
            check(group)
            _check_limits(group, order)
        plan = Plan(groups, states, order.may_skip, order.begun)
        plan.take()
        return plan

    def tell(self, groups: Groups) -> None:
        """Warn, once, of formats that were asked for and are mostly not applied, and of a missing native kernel."""
        if not self._told:
            self._told = True
            trained = [([param for param in group["params"] if param.requires_grad], group) for group in groups]
            for message in (*unapplied(trained), *_slow(trained)):
                warnings.warn(message, stacklevel=6)


def _check_limits(group: dict[str, Any], order: Order) -> None:
    """Raise where the norm of the gradients that are here would not be the one to clip or to judge by."""
    if group["differentiable"] and order.max_norm is not None:
        raise ValueError("max_norm is not for differentiable=True: clip outside of the step, recorded")
    if order.measures and any(getattr(param, "_fsdp_flattened", False) for param in group["params"]):
        limits = "max_norm" if order.max_norm is not None else "skip_nonfinite"
        raise ValueError(
            f"{limits} with flat parameters of FullyShardedDataParallel: each process would go by the norm of its own "
            f"shard. Use model.clip_grad_norm_() before step(), or fully_shard (FSDP2), and leave {limits} out"
        )


def _slow(groups: list[tuple[list[Tensor], Group]]) -> list[str]:
    """A message where parameters on the CPU are stepped slowly because there is no native kernel."""
    missing = extension.missing
    reasons = {choose_for(param, group).reason for params, group in groups for param in params} if missing else set()
    if missing not in reasons:
        return []
    return [f"{missing}, so steps on the CPU run in torch operations, several times slower: see `adamas doctor`"]
