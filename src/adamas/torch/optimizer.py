"""`Adam` and `AdamW` for PyTorch, with torch.optim's interface. `conductor.py` takes the steps."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import copy
from functools import wraps
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from adamas import options
from adamas.options import BASE_LR, DEFAULT_WEIGHT_DECAY, NEEDS_WEIGHT_DECAY, documented
from adamas.state.conform import decoded_moments, has_moments, master
from adamas.state.format import check_parameter, label
from adamas.state.layout import moment_dtype
from adamas.state.shards import local
from adamas.torch import averaging, checkpoint, wrappers
from adamas.torch.compiler import LightOptimizer, untraced
from adamas.torch.conductor import Conductor, Order
from adamas.torch.dispatch import choose_for
from adamas.torch.groups import Group, base_lr, check, refuse_near_misses, with_plain_values

Scalar = float | Tensor


@documented
class Adam(LightOptimizer):
    """Adam (arXiv 1412.6980), with weight decay as L2 in the gradient.

    ```
    g = gradient + weight_decay * theta
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    theta = theta - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
    ```

    Args:
        params: parameters, named parameters, or groups: dicts with "params" and any of the arguments below but
            max_norm and skip_nonfinite.
        {arguments}

    Raises:
        ValueError: a value is out of its range, or a group key is misspelt.
        RuntimeError: at a step, a gradient is sparse or a demanded kernel cannot step a parameter.

    Differences from torch:

    - Moments and arithmetic are float32 or wider, also for 16-bit parameters.
    - 16-bit parameters are rounded without bias. With `stochastic_rounding=False` they are rounded to nearest, which
      loses small steps.
    - A checkpoint is matched by name where names exist. It never changes the decay mode or the kernel.
    - lr = 0 changes no parameter. Infinite values and misspelt keys are refused.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam([weight], lr=0.1)
        >>> (3 * weight).sum().backward()
        >>> optimizer.step()
        >>> print(round(weight.item(), 6))
        0.9
    """

    _conductor: Conductor
    _accelerated: Any = None  # Accelerate's objects around this optimizer; None until a step looked for them

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-3,
        betas: tuple[Scalar, Scalar] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | None = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        state_dtype: str = "float32",
        master_weight_bits: int | None = None,
        stochastic_rounding: bool | None = None,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        skip_nonfinite: bool = False,
        seed: int = 0,
        cautious_decay: bool = False,
        kernel: str | None = None,
    ) -> None:
        self._construct(params, locals())

    def _construct(self, params: Any, given: dict[str, Any], **decided: Any) -> None:
        """Initialize from the constructor's arguments and from values that the class decides."""
        values = {**options.defaults(), **{key: x for key, x in given.items() if key in options.OPTIONS}, **decided}
        self._conductor = Conductor(values.pop("max_norm"), values.pop("skip_nonfinite"))
        # None stands for decay="independent" without a weight decay: then each group must give its own.
        check(values if values["weight_decay"] is not None else {**values, "weight_decay": 0.0}, constructing=True)
        super().__init__(params, with_plain_values(values))

    def add_param_group(self, param_group: Group) -> None:
        """Add a group after checking it. The group's present `lr` becomes its base learning rate."""
        if isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - else torch raises
            params = param_group["params"]
            if not isinstance(params, Tensor | set):
                params = param_group["params"] = list(params)
            refuse_near_misses(param_group)
            whole = {**self.defaults, **param_group}
            if whole["weight_decay"] is None and whole["decay"] == "independent":
                raise ValueError(NEEDS_WEIGHT_DECAY)
            check(whole, constructing=True)
            for i, entry in enumerate([params] if isinstance(params, Tensor) else params):
                name, param = entry if isinstance(entry, tuple) else (f"parameter {i}", entry)
                if isinstance(param, Tensor):
                    check_parameter(name, param, whole)
            if self._conductor.release is not None:
                self._conductor.release.admit(whole)
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        added.update(with_plain_values(added))
        added.setdefault(BASE_LR, base_lr(added))
        if self._conductor.release is not None:
            self._conductor.release.watch(len(self.param_groups) - 1)

    def _step(self, closure: Callable[[], Any] | None = None, *, zero_grad: bool | Literal["in_place"] = False) -> Any:
        """Take one step with the gradients in `.grad`.

        Args:
            closure: evaluates the model again and returns the loss.
            zero_grad: True sets every `.grad` to None after the step; "in_place" fills the gradients that the step used
                with zeros, in the same pass. A step that is skipped here does so too. A loss scaler without fused=True
                does not call `step` after an overflow: keep calling `zero_grad()` then.

        Returns:
            The result of the closure, or None.
        """
        if not isinstance(zero_grad, bool) and zero_grad != "in_place":
            raise ValueError(f"zero_grad={zero_grad!r} must be False, True (set to None) or 'in_place'")
        conductor = self._conductor
        if conductor.swapped:
            raise RuntimeError("step() inside averaged(): the weights are their averages there. Leave it first")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if "accelerate.optimizer" in sys.modules:
            if self._accelerated is None:
                self._accelerated = wrappers.accelerated(self)
            wrappers.carry_over(self, self._accelerated)
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)  # GradScaler sets both
        release = conductor.release
        if release is None or not release.close(scaled=scale is not None or found_inf is not None):
            in_place = zero_grad == "in_place"
            order = Order(conductor.max_norm, conductor.skip_nonfinite, scale, found_inf, scale is not None, in_place)
            conductor.step(self.param_groups, self.state, order)
        if zero_grad is True or (release is not None and not zero_grad):
            self.zero_grad()
        return loss

    _recorded_step = Optimizer.profile_hook_step(_step)

    @untraced
    @wraps(_step)
    def step(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        if _profiler_enabled():
            return self._recorded_step(*args, **kwargs)
        for hook in (*_global_optimizer_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
            changed = hook(self, (self, *args), kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise RuntimeError(f"{hook} must return None or (args, kwargs), and returned {changed!r}")
                args, kwargs = changed[0][1:], changed[1]  # the first of the arguments is the optimizer
        result = self._step(*args, **kwargs)
        for hook in (*self._optimizer_step_post_hooks.values(), *_global_optimizer_post_hooks.values()):
            hook(self, (self, *args), kwargs)
        return result

    # torch wraps every optimizer's `step` in a profiler record, which takes 8 us. We do so while a profiler runs.
    step.hooked = True  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `step` unscales gradients, for GradScaler: true with `fused=True`, as in torch."""
        if self._conductor.release is not None:
            return not self._conductor.release.scales_loss  # `step` raises if another scaler calls it
        return all(group["fused"] for group in self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state that this class, torch.optim.Adam or torch.optim.AdamW saved: see `adamas.torch.checkpoint`."""
        checkpoint.load(wrappers.unwrapped(self), state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for pickle and deepcopy."""
        return {**super().__getstate__(), "_conductor": copy(self._conductor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore attributes, with defaults for those that older or foreign checkpoints lack."""
        super().__setstate__(state)
        if "_conductor" not in self.__dict__:
            self._conductor = Conductor(None, False)
        self._conductor.plan = self._accelerated = None
        if self._conductor.release is not None:
            self._conductor.release.forget()
        self.defaults = {**options.defaults(), **self.defaults}
        for group in self.param_groups:
            group.update({**self.defaults, **group})
            group.setdefault(BASE_LR, base_lr(group))

    @untraced
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set every gradient to None, or fill it with zeros, as torch does."""
        if not set_to_none or _profiler_enabled():
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None
        return None

    @property
    def max_norm(self) -> float | None:
        """The limit of the gradients' global norm, or None. It may be changed between steps."""
        return self._conductor.max_norm

    @max_norm.setter
    def max_norm(self, value: float | None) -> None:
        self._conductor.limit(value, self._conductor.skip_nonfinite)

    @property
    def skip_nonfinite(self) -> bool:
        """Whether steps with inf or NaN gradients are skipped. It may be changed between steps."""
        return self._conductor.skip_nonfinite

    @skip_nonfinite.setter
    def skip_nonfinite(self, value: bool) -> None:
        self._conductor.limit(self._conductor.max_norm, value)

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, unscaled and before clipping; None before the first step.

        Reading the norm waits for the device; the step does not.

        Raises:
            RuntimeError: steps do not measure the norm, because neither `max_norm` nor `skip_nonfinite` is set.
        """
        norm = self._conductor.norm
        if norm is None and self.max_norm is None and not self.skip_nonfinite:
            raise RuntimeError("grad_norm is measured with max_norm or skip_nonfinite: max_norm=math.inf only measures")
        return None if norm is None else float(norm)

    @property
    def skipped_steps(self) -> int:
        """The number of steps that `skip_nonfinite` or a loss scaler's `found_inf` skipped since construction.

        Without fused=True, a loss scaler does not call `step` after an overflow, so that nothing is counted.
        Reading the number waits for the device; the step does not.
        """
        return int(self._conductor.skipped)

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the weights are their moving averages: see `adamas.torch.averaging`."""
        return averaging.swapped(self, self._conductor)

    def moments(self, param: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of a parameter's moments in float32 or wider, without bias correction.

        Args:
            param: a parameter of this optimizer. Before its first step both moments are zero.

        Returns:
            `(exp_avg, exp_avg_sq)`, shaped like the parameter.

        Raises:
            ValueError: `param` is not in this optimizer's groups.
        """
        state = self._state_of(param)
        if not has_moments(state):
            zeros = torch.zeros_like(param, dtype=moment_dtype(param), requires_grad=False)
            return zeros, zeros.clone()
        exp_avg, exp_avg_sq = decoded_moments(state, param)
        return exp_avg.detach().clone(), exp_avg_sq.detach().clone()

    def master(self, param: Tensor) -> Tensor:
        """A copy of a weight in float32 or wider, including the low bits of a master weight.

        Inside of `averaged()` the copy is the average. After a change of the parameter by hand, the old low bits still
        count: they are less than half of bfloat16's last place. Before a parameter is made float32, copy this into it:
        the conversion loses the low bits.

        Raises:
            ValueError: `param` is not in this optimizer's groups.
        """
        state = self._state_of(param)
        if self._conductor.swapped and "ema" in state:
            return state["ema"].detach().clone()
        return master(state, param)

    def _state_of(self, param: Tensor) -> dict[str, Any]:
        """The state of a parameter, empty before its first step."""
        if not any(param is mine for group in self.param_groups for mine in group["params"]):
            raise ValueError(f"a parameter of shape {tuple(param.shape)} is not in this optimizer's groups")
        return self.state.get(param) or {}

    def state_dict(self, *, decoded: bool = False) -> dict[str, Any]:
        """The state and the groups, as torch.optim's `state_dict` gives them.

        Args:
            decoded: whether to convert moments from the stored format to float32 or wider and to leave out the low bits
                of master weights, so that `torch.optim.AdamW` can load the result. `master` has the low bits. Moments
                of FSDP1's flat parameters are always decoded: FSDP1 saves only states of the parameter's shape.
        """
        state_dict = super().state_dict()
        state_dict["param_groups"] = [with_plain_values(group) for group in state_dict["param_groups"]]
        return checkpoint.decoded(self, state_dict, flat_only=not decoded)

    @overload
    def state_bytes(self, *, by_reason: Literal[False] = False) -> int: ...
    @overload
    def state_bytes(self, *, by_reason: Literal[True]) -> dict[str, int]: ...
    def state_bytes(self, *, by_reason: bool = False) -> int | dict[str, int]:
        """The bytes of the optimizer's state in this process, step counters included.

        Args:
            by_reason: whether to return a dict from the format of the moments to bytes. The key names the reason where
                the format is not the one that `state_dtype` asks for.
        """
        found: Counter[str] = Counter()
        labels = {param: label(param, group) for group in self.param_groups for param in group["params"]}
        for key, state in self.state.items():
            tensors = [local(x) for x in state.values() if isinstance(x, Tensor)]
            bytes_held = sum(x.numel() * x.element_size() for x in tensors)
            found[labels.get(key, "no parameter of a group")] += bytes_held
        return dict(found) if by_reason else found.total()

    def kernel_choices(self) -> list[tuple[str, str, str]]:
        """Rows `(what, kernel, reason)` with the kernel for each kind of parameter, as they are now."""
        counts = Counter(
            (f"group {index}: {{}} x {str(param.dtype)[6:]} on {param.device}", *choose_for(param, group))
            for index, group in enumerate(self.param_groups)
            for param in group["params"]
        )
        return [(what.format(count), kernel, reason) for (what, kernel, reason), count in counts.items()]


@documented
class AdamW(Adam):
    """AdamW (arXiv 1711.05101): Adam with weight decay that does not go into the gradient.

    ```
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    theta = theta - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps) - d * theta

    d = lr * weight_decay               decay="lr"
        weight_decay * lr / base_lr     decay="independent"
        weight_decay * lr**2 / base_lr  decay="corrected"
    ```

    Args:
        params: parameters, named parameters, or groups: dicts with "params" and any of the arguments below but
            max_norm and skip_nonfinite.
        {arguments}

    Raises:
        ValueError: as for `Adam`; also for decay="independent" without a weight_decay or with lr = 0 at construction.

    The differences from torch are those of `Adam`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.5)
        >>> weight.grad = torch.zeros(1)
        >>> optimizer.step()  # without gradient the weight shrinks by lr * weight_decay = 5 %
        >>> print(round(weight.item(), 6))
        0.95
    """

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-3,
        betas: tuple[Scalar, Scalar] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = DEFAULT_WEIGHT_DECAY,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decay: str = "lr",
        state_dtype: str = "float32",
        master_weight_bits: int | None = None,
        stochastic_rounding: bool | None = None,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        skip_nonfinite: bool = False,
        seed: int = 0,
        cautious_decay: bool = False,
        kernel: str | None = None,
    ) -> None:
        given = locals()
        if decay == "independent" and weight_decay is DEFAULT_WEIGHT_DECAY:
            given["weight_decay"] = None
        self._construct(params, given, decoupled_weight_decay=True)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group as `Adam.add_param_group` does, but refuse L2."""
        if isinstance(param_group, dict) and not param_group.get("decoupled_weight_decay", True):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError("decoupled_weight_decay=False in a group of AdamW: use Adam for coupled L2")
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore attributes as `Adam` does, but always with decoupled decay."""
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
