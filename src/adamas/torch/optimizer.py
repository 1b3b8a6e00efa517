"""`Adam` and `AdamW` for PyTorch: torch.optim's contract, Adamas' kernels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from adamas.kernels import gradient
from adamas.kernels.bucket import MismatchError, moment_dtype
from adamas.scalars import check_max_norm, grad_factor
from adamas.torch import averaging, checkpoint
from adamas.torch.compiler import LightOptimizer, untraced
from adamas.torch.groups import (
    DEFAULT_WEIGHT_DECAY,
    Group,
    base_lr,
    check,
    refuse_integers,
    refuse_near_misses,
)
from adamas.torch.plan import Due, Plan, choose_for
from adamas.torch.state import has_moments, stored_as
from adamas.torch.storage import check_parameters

if TYPE_CHECKING:
    from adamas.torch.release import Release

Scalar = float | Tensor

# What a pickle of an earlier version lacks.
OLDER_DEFAULTS: Group = {
    "ema_decay": None,
    "state_dtype": "float32",
    "master_weight_bits": None,
    "stochastic_rounding": None,
    "seed": 0,
}


class Adam(LightOptimizer):
    r"""Adam (arXiv 1412.6980), with weight decay as L2 coupled into the gradient.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda \theta_{t-1}, \qquad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \mathrm{lr}\;
            \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Args:
        params: parameters, named parameters, or groups (dicts with "params" and any of the arguments below).
        lr: step size, >= 0, in the units of the parameters: the first step moves each weight by lr. A 1-element tensor
            is read each step.
        betas: decay of the first and second moment, each in [0, 1); the memory is about 1 / (1 - beta) steps.
        eps: added to the root of the second moment, in the units of the gradient.
        weight_decay: lambda, in the units of gradient over weight.
        amsgrad: divide by the running maximum of the second moment.
        maximize: ascend.
        foreach: True demands torch's list operations, False excludes them.
        capturable: keep step and scalars on the device, for CUDA graphs.
        differentiable: let autograd record the step.
        fused: True demands a kernel that does the step in one pass (native, or triton on a GPU), False excludes it.
        decoupled_weight_decay: AdamW's decay instead of L2.
        state_dtype: how both moments are stored: "float32", or as wide as a wider parameter; "bfloat16" (4 B a
            parameter for both), "packed16" (2.05 B), "packed12" (1.55 B), all rounded without bias; "param": as the
            parameter.
            Tensors with fewer than 4,096 elements, one dimension or rows below 64 keep float32, save for "param".
        master_weight_bits: 24 or 32: bfloat16 parameters get the low bits that they lack, 1 or 2 B each; training with
            32 is that in float32, bit for bit. Not for float16.
        stochastic_rounding: round weights of 16 bits (and of 24) without bias, not to nearest; None: yes.
        max_norm: clip the global norm of all gradients to this inside the step, as `clip_grad_norm_` before it would;
            math.inf only measures. > 0.
        ema_decay: keep an exponential moving average of the weights, of this memory in [0, 1): see `averaged`.
        skip_nonfinite: a step whose gradients hold an inf or a NaN changes nothing and is counted.
        seed: of the random bits that rounding draws: with the step and the element's place it determines them.
        kernel: None chooses; "native", "triton" or "eager" demands.

    Raises:
        ValueError: a value out of its range, a misspelt group key, an integer parameter; with value, rule and fix.
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

    _plan: Plan | None = None
    _max_norm: float | None = None
    _skip_nonfinite: bool = False
    _norm: float | Tensor | None = None
    _skipped: int | Tensor = 0
    _release: Release | None = None  # set while backward steps: see `release_gradients`
    _swapped: bool = False  # whether the weights are their averages: see `averaged`

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
        kernel: str | None = None,
    ) -> None:
        self.max_norm = max_norm
        self.skip_nonfinite = skip_nonfinite
        defaults: Group = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            "decay": self._decay,
            "state_dtype": state_dtype,
            "master_weight_bits": master_weight_bits,
            "stochastic_rounding": stochastic_rounding,
            "ema_decay": ema_decay,
            "seed": seed,
            "kernel": kernel,
        }
        # None only for decay="independent" without a weight decay: every group must then have one of its own.
        check(defaults if weight_decay is not None else {**defaults, "weight_decay": 0.0})
        super().__init__(params, defaults)

    _decay: str = "lr"  # how decoupled decay is scaled; AdamW's argument

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, checked before anything changes; its `lr` becomes the base of `decay="independent"`."""
        if isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - else torch raises
            params = param_group["params"]
            if not isinstance(params, Tensor | set):
                params = param_group["params"] = list(params)
            refuse_near_misses(param_group)
            refuse_integers([params] if isinstance(params, Tensor) else list(params))
            whole = {**self.defaults, **param_group}
            if whole["weight_decay"] is None and whole["decay"] == "independent":
                raise ValueError(
                    "decay='independent' needs weight_decay given: the default 0.01 would shrink weights by 1 % a "
                    "step. adamas.decay.to_independent(weight_decay, lr) converts torch's"
                )
            check(whole)
            check_parameters([params] if isinstance(params, Tensor) else list(params), whole)
            if self._release is not None:
                self._release.admit(whole)
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        added["betas"] = tuple(added["betas"])  # a list changed in place would not be noticed
        added.setdefault("decay_base_lr", base_lr(added))
        if self._release is not None:
            self._release.watch(len(self.param_groups) - 1)

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
        if self._swapped:
            raise RuntimeError("step() inside averaged(): the weights are their averages there. Leave it first")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._apply(zero_grad == "in_place")
        if zero_grad is True or (self._release is not None and not zero_grad):
            self.zero_grad()
        return loss

    def _apply(self, zero_in_place: bool) -> None:
        """Step with the gradients as they are, unless they are not fit to."""
        found_inf, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)  # set by GradScaler
        if self._release is not None and self._release.close(scaled=scale is not None or found_inf is not None):
            return
        max_norm, skip_nonfinite = self._max_norm, self._skip_nonfinite
        plan = self._ready(may_skip=skip_nonfinite or found_inf is not None)
        if not plan.on_device:
            found_inf = None if found_inf is None else float(found_inf)
            scale = None if scale is None else float(scale)
        scale = 1.0 if scale is None else plan.at_home(scale)
        if max_norm is not None or skip_nonfinite:
            self._norm = gradient.global_norm(plan.squares(), scale, plan.on_device)
        else:
            self._norm = None
        skip = gradient.unfit(self._norm if skip_nonfinite else None, found_inf)
        self._skipped = gradient.counted(self._skipped, skip)
        if skip is True:
            plan.release(zero_in_place)
            self._plan = plan if plan.committed else None
            return
        factor = grad_factor(scale, self._norm, max_norm)
        due = self._due(plan, factor, None if skip is False else skip)
        plan.commit(self.state)
        plan.step(due, zero_in_place)
        self._plan = plan

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

    def _ready(self, may_skip: bool) -> Plan:
        """A plan that holds, whose kernels have checked and taken the gradients; nothing is written."""
        plan, self._plan = self._plan, None  # kept only if all goes well: what fails keeps no gradients
        if plan is not None and plan.holds(self.param_groups, self.state, may_skip):
            try:
                for bucket in plan.buckets:
                    bucket.take()
                return plan
            except MismatchError:
                pass  # a tensor was moved or laid out anew: plan again, and let what is really wrong raise below
        for group in self.param_groups:
            check(group)
            if group["differentiable"] and self._max_norm is not None:
                raise ValueError("max_norm is not for differentiable=True: clip outside of the step, recorded")
        plan = Plan(self.param_groups, self.state, may_skip)
        for bucket in plan.buckets:
            bucket.take()
        return plan

    def _due(self, plan: Plan, factor: Any, skip: Tensor | None) -> list[Due]:
        if plan.on_accelerator:  # renamed in torch 2.12
            name = "_accelerator_graph_capture_health_check"
            getattr(self, name if hasattr(self, name) else "_cuda_graph_capture_health_check")()
        return [plan.due(bucket, self.param_groups[bucket.group], factor, skip) for bucket in plan.buckets]

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """GradScaler's question whether `step` unscales: as in torch where `fused=True`, read from the live groups."""
        if self._release is not None:
            return not self._release.scales_loss  # a scaler that it does not know is told so in `step`
        return all(group["fused"] for group in self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state saved by this class, by torch.optim.Adam or AdamW: see `adamas.torch.checkpoint`."""
        checkpoint.load(self, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy take."""
        return {**super().__getstate__(), "_max_norm": self._max_norm, "_skip_nonfinite": self._skip_nonfinite}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, completing what older or foreign checkpoints lack."""
        super().__setstate__(state)
        self._plan = None
        if self._release is not None:
            self._release.forget()
        self.defaults = {**OLDER_DEFAULTS, **self.defaults}
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
            group.setdefault("decay_base_lr", base_lr(group))

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
        return self._max_norm

    @max_norm.setter
    def max_norm(self, value: float | None) -> None:
        check_max_norm(value)
        self._max_norm = value
        self._plan = None  # which is where it is checked against the groups

    @property
    def skip_nonfinite(self) -> bool:
        """Whether steps with inf or NaN gradients are skipped; may be changed between steps."""
        return self._skip_nonfinite

    @skip_nonfinite.setter
    def skip_nonfinite(self, value: bool) -> None:
        if not isinstance(value, bool | int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"skip_nonfinite={value!r} must be True or False")
        self._skip_nonfinite = bool(value)

    @property
    def grad_norm(self) -> float | None:
        """The global norm of the last step's gradients, unscaled and before clipping; None before the first step.

        Reading it waits for the device that computed it; the step did not.

        Raises:
            RuntimeError: nothing measures it.
        """
        if self._norm is None and self.max_norm is None and not self.skip_nonfinite:
            raise RuntimeError("grad_norm is measured with max_norm or skip_nonfinite: max_norm=math.inf only measures")
        return None if self._norm is None else float(self._norm)

    @property
    def skipped_steps(self) -> int:
        """How many calls of `step` changed nothing, for skip_nonfinite or found_inf, since this object was made.

        A loss scaler counts its own: without fused=True it does not call `step` after an overflow. Reading it waits for
        the device that decided; the step did not.
        """
        return int(self._skipped)

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the weights are their moving averages: see `adamas.torch.averaging`."""
        return averaging.swapped(self)

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
        form = stored_as(state, param)
        if form.moments == "wide":
            return state["exp_avg"].detach().clone(), state["exp_avg_sq"].detach().clone()
        from adamas.kernels import stored

        return stored.moments(form, state, param.detach())

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
        if self._swapped and "ema" in state:
            return state["ema"].detach().clone()
        from adamas.kernels import stored

        return stored.weight(stored_as(state, param), state, param)

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
        return checkpoint.decoded(self, state_dict) if decoded else state_dict

    def state_bytes(self) -> int:
        """Bytes of optimizer state now held, step counters included."""
        tensors = [x for state in self.state.values() for x in state.values() if isinstance(x, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

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


class AdamW(Adam):
    r"""AdamW (arXiv 1711.05101): Adam with weight decay apart from the gradient.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \mathrm{lr}\,
            \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon} - d_t\,\theta_{t-1},
        \qquad d_t = \mathrm{lr}\,\lambda \;\text{or}\; \lambda\,\mathrm{lr}/\mathrm{lr}_\mathrm{base}

    Args:
        params: as `Adam`.
        lr: as `Adam`.
        betas: as `Adam`.
        eps: as `Adam`.
        weight_decay: lambda. With decay="lr" a weight shrinks by lr * weight_decay a step (torch, optax, Keras); with
            decay="independent" by weight_decay alone at the base learning rate (the paper), so it must be given.
        amsgrad: as `Adam`.
        maximize: as `Adam`.
        foreach: as `Adam`.
        capturable: as `Adam`.
        differentiable: as `Adam`.
        fused: as `Adam`.
        decay: "lr" or "independent"; see `adamas.decay.to_independent` for the conversion.
        state_dtype: as `Adam`.
        master_weight_bits: as `Adam`.
        stochastic_rounding: as `Adam`.
        max_norm: as `Adam`.
        ema_decay: as `Adam`.
        skip_nonfinite: as `Adam`.
        seed: as `Adam`.
        kernel: as `Adam`.

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
        kernel: str | None = None,
    ) -> None:
        if decay not in ("lr", "independent"):
            raise ValueError(f"decay={decay!r} must be 'lr' or 'independent'; for L2 in the gradient use Adam")
        self._decay = decay
        super().__init__(
            params,
            lr,
            betas,
            eps,
            None if decay == "independent" and weight_decay is DEFAULT_WEIGHT_DECAY else weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            state_dtype=state_dtype,
            master_weight_bits=master_weight_bits,
            stochastic_rounding=stochastic_rounding,
            max_norm=max_norm,
            ema_decay=ema_decay,
            skip_nonfinite=skip_nonfinite,
            seed=seed,
            kernel=kernel,
        )

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
