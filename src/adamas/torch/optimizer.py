"""`Adam` and `AdamW` for PyTorch: torch.optim's contract; `conductor.py` takes the steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from adamas import formats, options
from adamas.options import BASE_LR, documented
from adamas.state.conform import decoded_moments, has_moments, stored_as
from adamas.state.format import check_parameter, shares
from adamas.state.layout import moment_dtype
from adamas.torch import averaging, checkpoint
from adamas.torch.compiler import LightOptimizer, untraced
from adamas.torch.conductor import Conductor, Order
from adamas.torch.dispatch import choose_for
from adamas.torch.groups import Group, base_lr, check, refuse_near_misses, with_plain_values

Scalar = float | Tensor

# AdamW's default, told from an explicit 0.01 by identity: `decay="independent"` must not take it silently.
DEFAULT_WEIGHT_DECAY = float("1e-2")


@documented
class Adam(LightOptimizer):
    r"""Adam (arXiv 1412.6980), with weight decay as L2 coupled into the gradient.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1}, \qquad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \mathrm{lr}\;
            \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Args:
        {arguments}

    Raises:
        ValueError: a value out of its range or a misspelt group key; with value, rule and fix.
        RuntimeError: a demanded kernel that cannot step a parameter (at the step), sparse gradients.

    Differs from torch: moments are float32 or wider even for 16-bit parameters; arithmetic likewise; such parameters
    are rounded without bias (`stochastic_rounding=False`: to nearest, where small steps are lost); a checkpoint is
    matched by name where names exist, and never changes the decay mode or the implementation; lr = 0 changes no
    parameter; inf and misspelt keys are refused.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam([weight], lr=0.1)
        >>> (3 * weight).sum().backward()
        >>> optimizer.step()
        >>> print(round(weight.item(), 6))
        0.9
    """

    _conductor: Conductor

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
        """Make the optimizer from the constructor's arguments, and from values that the class decides."""
        values = {**options.defaults(), **{key: x for key, x in given.items() if key in options.OPTIONS}, **decided}
        self._conductor = Conductor(values.pop("max_norm"), values.pop("skip_nonfinite"))
        # None only for decay="independent" without a weight decay: every group must then have one of its own.
        check(values if values["weight_decay"] is not None else {**values, "weight_decay": 0.0}, constructing=True)
        super().__init__(params, with_plain_values(values))

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, checked before anything changes; its `lr` becomes the base of decay that divides by it."""
        if isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - else torch raises
            params = param_group["params"]
            if not isinstance(params, Tensor | set):
                params = param_group["params"] = list(params)
            refuse_near_misses(param_group)
            whole = {**self.defaults, **param_group}
            if whole["weight_decay"] is None and whole["decay"] == "independent":
                raise ValueError(
                    "decay='independent' needs weight_decay given: the default 0.01 would shrink weights by 1 % a "
                    "step. adamas.decay.to_independent(weight_decay, lr) converts torch's"
                )
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
        """Take one step with the gradients in `.grad`, which are not modified unless asked.

        Args:
            closure: re-evaluates the model and returns the loss.
            zero_grad: True sets every `.grad` to None after the step, "in_place" fills those it used with zeros, in the
                same pass; a step skipped here does so too. A loss scaler without fused=True does not call `step` after
                an overflow: keep `zero_grad()` beside it.

        Returns:
            What the closure returned, or None.
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
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)  # set by GradScaler
        release = conductor.release
        if release is None or not release.close(scaled=scale is not None or found_inf is not None):
            order = Order(
                conductor.max_norm,
                conductor.skip_nonfinite,
                scale,
                found_inf,
                scale is not None,
                zero_grad == "in_place",
            )
            conductor.step(self.param_groups, self.state, order)
        if zero_grad is True or (release is not None and not zero_grad):
            self.zero_grad()
        return loss

    _hooked_step = Optimizer.profile_hook_step(_step)

    @untraced
    @wraps(_step)
    def step(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or _profiler_enabled()
        ):
            return self._hooked_step(*args, **kwargs)
        return self._step(*args, **kwargs)

    # torch wraps every optimizer's `step` in its hooks and a profiler record, 8 us a call; we do where there is one.
    step.hooked = True  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """GradScaler's question whether `step` unscales: as in torch where `fused=True`, read from the live groups."""
        if self._conductor.release is not None:
            return not self._conductor.release.scales_loss  # a scaler that it does not know is told so in `step`
        return all(group["fused"] for group in self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state saved by this class, by torch.optim.Adam or AdamW: see `adamas.torch.checkpoint`."""
        checkpoint.load(self, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy take."""
        limits = {"_max_norm": self.max_norm, "_skip_nonfinite": self.skip_nonfinite}
        return {**super().__getstate__(), **limits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, completing what older or foreign checkpoints lack."""
        limits = state.get("_max_norm"), state.get("_skip_nonfinite", False)
        super().__setstate__(
            {key: value for key, value in state.items() if key not in ("_max_norm", "_skip_nonfinite")}
        )
        if "_conductor" not in self.__dict__:
            self._conductor = Conductor(*limits)
        self._conductor.plan = None
        if self._conductor.release is not None:
            self._conductor.release.forget()
        self.defaults = {**options.defaults(), **self.defaults}
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
            group.setdefault(BASE_LR, base_lr(group))

    @untraced
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set every gradient to None, or to zero, as torch does."""
        if not set_to_none or _profiler_enabled():
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None
        return None

    @property
    def max_norm(self) -> float | None:
        """The limit of the gradients' global norm; may be changed between steps."""
        return self._conductor.max_norm

    @max_norm.setter
    def max_norm(self, value: float | None) -> None:
        self._conductor.limit(value, self._conductor.skip_nonfinite)

    @property
    def skip_nonfinite(self) -> bool:
        """Whether steps with inf or NaN gradients are skipped; may be changed between steps."""
        return self._conductor.skip_nonfinite

    @skip_nonfinite.setter
    def skip_nonfinite(self, value: bool) -> None:
        self._conductor.limit(self._conductor.max_norm, value)

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, unscaled and before clipping; None before the first step.

        Reading it waits for the device that computed it; the step did not.

        Raises:
            RuntimeError: nothing measures it.
        """
        norm = self._conductor.norm
        if norm is None and self.max_norm is None and not self.skip_nonfinite:
            raise RuntimeError("grad_norm is measured with max_norm or skip_nonfinite: max_norm=math.inf only measures")
        return None if norm is None else float(norm)

    @property
    def skipped_steps(self) -> int:
        """How many calls of `step` changed nothing, for skip_nonfinite or found_inf, since this object was made.

        A loss scaler counts its own: without fused=True it does not call `step` after an overflow. Reading it waits for
        the device that decided; the step did not.
        """
        return int(self._conductor.skipped)

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the weights are their moving averages: see `adamas.torch.averaging`."""
        return averaging.swapped(self, self._conductor)

    def moments(self, param: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of a parameter's moments, float32 or wider: raw moving averages, not bias-corrected.

        Args:
            param: a parameter of this optimizer; before its first step both moments are zero.

        Returns:
            `(exp_avg, exp_avg_sq)`, shaped like the parameter.

        Raises:
            ValueError: `param` is not one of this optimizer's.
        """
        self._check_mine(param)
        state = self.state.get(param) or {}
        if not has_moments(state):
            zeros = torch.zeros_like(param, dtype=moment_dtype(param), requires_grad=False)
            return zeros, zeros.clone()
        exp_avg, exp_avg_sq = decoded_moments(state, param)
        return exp_avg.detach().clone(), exp_avg_sq.detach().clone()

    def master(self, param: Tensor) -> Tensor:
        """A copy of a weight in float32 or wider, with the low bits that its parameter lacks, where it has some.

        Inside of `averaged()` it is the average. Where a parameter was changed by hand, the low bits of what it was
        before still count: they are less than half of bfloat16's last place. A parameter that is made float32 loses
        them: copy this into it first.

        Raises:
            ValueError: `param` is not one of this optimizer's.
        """
        self._check_mine(param)
        state = self.state.get(param) or {}
        if self._conductor.swapped and "ema" in state:
            return state["ema"].detach().clone()
        return formats.stored.weight(stored_as(state, param), state, param)

    def _check_mine(self, param: Tensor) -> None:
        if not any(param is mine for group in self.param_groups for mine in group["params"]):
            raise ValueError(f"a parameter of shape {tuple(param.shape)} is not in this optimizer's groups")

    def state_dict(self, *, decoded: bool = False) -> dict[str, Any]:
        """The state as torch.optim's `state_dict`, moments as they are stored.

        Args:
            decoded: give the moments as torch.optim keeps them, float32 or wider, in whatever format they are here:
                `torch.optim.AdamW` loads that. Low bits of master weights are left out: see `master`.
        """
        state_dict = super().state_dict()
        state_dict["param_groups"] = [with_plain_values(group) for group in state_dict["param_groups"]]
        return checkpoint.decoded(self, state_dict) if decoded else state_dict

    @overload
    def state_bytes(self, *, by_reason: Literal[False] = False) -> int: ...
    @overload
    def state_bytes(self, *, by_reason: Literal[True]) -> dict[str, int]: ...
    def state_bytes(self, *, by_reason: bool = False) -> int | dict[str, int]:
        """Bytes of optimizer state now held, step counters included.

        Args:
            by_reason: a dict instead: bytes by how moments are stored, and where that is not what `state_dtype` asks
                for, by the reason.
        """
        found: dict[str, int] = {}
        labels = {param: next(iter(shares([param], group))) for group in self.param_groups for param in group["params"]}
        for key, state in self.state.items():
            tensors = [x for x in state.values() if isinstance(x, Tensor)]
            label = labels.get(key, "no parameter of a group")
            found[label] = found.get(label, 0) + sum(x.numel() * x.element_size() for x in tensors)
        return found if by_reason else sum(found.values())

    def kernel_choices(self) -> list[tuple[str, str, str]]:
        """Rows `(what, kernel, reason)`: which kernel steps what, and why, as parameters and gradients are now."""
        counts: dict[tuple[str, str, str], int] = {}
        for index, group in enumerate(self.param_groups):
            for param in group["params"]:
                what = f"group {index}: {{}} x {str(param.dtype)[6:]} on {param.device}"
                choice = choose_for(param, group)
                key = (what, choice.kernel, choice.reason)
                counts[key] = counts.get(key, 0) + 1
        return [(what.format(count), kernel, reason) for (what, kernel, reason), count in counts.items()]


@documented
class AdamW(Adam):
    r"""AdamW (arXiv 1711.05101): Adam with weight decay apart from the gradient.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \mathrm{lr}\,
            \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon} - d_t\,\theta_{t-1},
        \qquad d_t = \mathrm{lr}\,\lambda,\; \lambda\,\mathrm{lr}/\mathrm{lr}_\mathrm{base}
        \;\text{or}\; \lambda\,\mathrm{lr}^2/\mathrm{lr}_\mathrm{base}

    Args:
        {arguments}

    Raises:
        ValueError: as `Adam`; also decay="independent" without a weight_decay or with lr = 0 at construction.

    Differs from torch: as `Adam`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([weight], lr=0.1, weight_decay=0.5)
        >>> weight.grad = torch.zeros(1)
        >>> optimizer.step()  # no gradient: the weight shrinks by lr * weight_decay = 5 %
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
        """As `Adam.add_param_group`; a group cannot couple its decay."""
        if isinstance(param_group, dict) and not param_group.get("decoupled_weight_decay", True):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError("decoupled_weight_decay=False in a group of AdamW: use Adam for coupled L2")
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; whatever the source says, this is AdamW."""
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
