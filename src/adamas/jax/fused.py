"""Adam and AdamW that step parameters in place: `init(params)` and `step(params, state, grads)`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamas import options
from adamas.decay import DecayMode
from adamas.formats.names import PACKED, Request, Storage, state_names, storage_for
from adamas.jax.settings import ScalarOrSchedule, Settings
from adamas.kernels import functional, xla


class FusedState(NamedTuple):
    """The state of `Fused`: the number of steps taken, and a dict of arrays in the place of each parameter."""

    count: Any
    states: Any


class Fused:
    """An optimizer that steps parameters and state together, made by `fused_adam` or `fused_adamw`.

    `init` and `step` are pure functions. Donate parameters and state to step them in place:

    ```
    step = jax.jit(optimizer.step, donate_argnums=(0, 1))
    params, state = step(params, state, grads)
    ```
    """

    def __init__(self, settings: Settings, asked: Request) -> None:
        self._settings, self._asked = settings, asked
        self._jitted = jax.jit(self._step)

    def init(self, params: Any) -> FusedState:
        """The state before the first step.

        Raises:
            ValueError: a parameter has a dtype that the options do not allow.
        """
        leaves, structure = jax.tree.flatten_with_path(params)
        states = [self._begun(jax.tree_util.keystr(path), jnp.asarray(param)) for path, param in leaves]
        return FusedState(jnp.zeros((), jnp.int32), structure.unflatten(states))

    def step(self, params: Any, state: FusedState, grads: Any) -> tuple[Any, FusedState]:
        """The parameters and the state after a step.

        Args:
            params: the parameters, floating-point arrays.
            state: what `init` or the last step returned.
            grads: the gradients, in the structure of the parameters.
        """
        return self._jitted(params, state, grads)

    def averages(self, state: FusedState) -> Any:
        """The moving averages of the weights, in the structure of the parameters.

        Raises:
            ValueError: no average is kept.
        """
        if self._settings.ema_decay is None:
            raise ValueError("no average of the weights is kept: give ema_decay")
        return jax.tree.map(lambda one: one["ema"], state.states, is_leaf=_is_state)

    def moments(self, params: Any, state: FusedState) -> tuple[Any, Any]:
        """Both moments in float32 or wider, without bias correction, each in the structure of the parameters."""
        leaves, structure = jax.tree.flatten(params)
        states = structure.flatten_up_to(state.states)
        pairs = [
            functional.moments(self._storage(param), one, param) for param, one in zip(leaves, states, strict=True)
        ]
        return structure.unflatten([m for m, _ in pairs]), structure.unflatten([v for _, v in pairs])

    def _storage(self, param: Any) -> Storage:
        return storage_for(str(param.dtype), tuple(param.shape), self._asked, sharded=True)  # it may be, later

    def _begun(self, name: str, param: Any) -> dict[str, Any]:
        """The state of a parameter before its first step: zeros, where the parameter is."""
        if str(param.dtype) not in xla.DTYPES:
            raise ValueError(f"params{name} is {param.dtype}: parameters must be one of {', '.join(xla.DTYPES)}")
        storage, settings = self._storage(param), self._settings
        amsgrad = settings.amsgrad != "off"
        asked = {**self._asked._asdict(), "amsgrad": amsgrad}
        options.check_stored(f"params{name}", str(param.dtype), storage, asked)
        state = functional.zeros(jnp, storage, tuple(param.shape), str(param.dtype))
        wide = jnp.promote_types(param.dtype, jnp.float32)
        if amsgrad:
            state["max_exp_avg_sq"] = jnp.zeros(param.shape, wide)
        if settings.ema_decay is not None:
            state["ema"] = jnp.array(param, wide)  # a copy, until the first step makes another one
        return xla.placed(state, param)

    def _check_states(self, buckets: dict[Any, list[int]], states: list[Any], paths: list[Any]) -> None:
        """Raise ValueError on a state of an optimizer with other options."""
        settings = self._settings
        for (_, _, storage, _), members in buckets.items():
            needed = set(state_names(settings.amsgrad != "off", settings.ema_decay is not None, storage))
            for i in members:
                found = set(states[i]) if isinstance(states[i], dict) else {type(states[i]).__name__}
                if found != needed:
                    name = jax.tree_util.keystr(paths[i][0])
                    raise ValueError(
                        f"the state of params{name} has {sorted(found)}, and this optimizer needs {sorted(needed)}: "
                        "make the state with init of an optimizer with the same options"
                    )

    def _step(self, params: Any, state: FusedState, grads: Any) -> tuple[Any, FusedState]:
        paths, structure = jax.tree.flatten_with_path(params)
        leaves = [jnp.asarray(param) for _, param in paths]
        gradients = [jnp.asarray(grad) for grad in structure.flatten_up_to(grads)]
        states, settings = structure.flatten_up_to(state.states), self._settings
        norm = xla.global_norm(gradients) if settings.max_norm is not None else None
        decaying = settings.decaying(params)
        random = any(self._storage(param).random for param in leaves)
        made = {decays: settings.scalars(state.count, norm, decays, random) for decays in set(decaying)}
        buckets: dict[Any, list[int]] = {}
        for i, (param, grad, decays) in enumerate(zip(leaves, gradients, decaying, strict=True)):
            if grad.shape != param.shape:
                name = jax.tree_util.keystr(paths[i][0])
                raise ValueError(f"grads{name} has shape {grad.shape}, its parameter {param.shape}: they must agree")
            key = (str(param.dtype), str(grad.dtype), self._storage(param), decays)
            buckets.setdefault(key, []).append(i)
        self._check_states(buckets, states, paths)
        for (_, _, storage, decays), members in buckets.items():
            kind = xla.Kind(
                storage,
                settings.amsgrad != "off",
                settings.ema_decay is not None,
                settings.cautious_decay,
                settings.absent(decays),
            )
            parts: list[Any] = [[each[i] for i in members] for each in (leaves, gradients, states)]
            stepped = xla.step(xla.Bucket(kind, *parts), made[decays])
            for i, param, one in zip(members, *stepped, strict=True):
                leaves[i], states[i] = param, one
        count = optax.safe_increment(state.count)
        return structure.unflatten(leaves), FusedState(count, structure.unflatten(states))


def _is_state(tree: Any) -> bool:
    """Whether a tree is the dict of arrays of one parameter, with an average."""
    return isinstance(tree, dict) and "ema" in tree and not tree.keys().isdisjoint(("exp_avg", *PACKED))


def fused_adam(
    learning_rate: ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    weight_decay: Any = 0.0,
    mask: Any = None,
    amsgrad: str = "off",
    maximize: bool = False,
    state_dtype: str = "float32",
    master_weight_bits: int | None = None,
    stochastic_rounding: bool | None = None,
    max_norm: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
) -> Fused:
    """Adam with L2 in the gradient, stepped in place on a CPU: see `fused_adamw`, which has the same arguments.

    Example:
        >>> params = {"w": jnp.array([1.0])}
        >>> optimizer = fused_adam(0.1)
        >>> params, state = optimizer.step(params, optimizer.init(params), {"w": jnp.array([5.0])})
        >>> print(params["w"].round(6), int(state.count))
        [0.9] 1
    """
    settings = Settings(
        learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask, decay="l2",
        base_lr=None, cautious_decay=False, amsgrad=amsgrad, maximize=maximize, ema_decay=ema_decay,
        max_norm=max_norm, seed=seed,
    )  # fmt: skip
    return _fused(settings, Request(state_dtype, master_weight_bits, stochastic_rounding))


def fused_adamw(
    learning_rate: ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    weight_decay: Any = 1e-4,
    mask: Any = None,
    decay: DecayMode = "lr",
    base_lr: float | None = None,
    cautious_decay: bool = False,
    amsgrad: str = "off",
    maximize: bool = False,
    state_dtype: str = "float32",
    master_weight_bits: int | None = None,
    stochastic_rounding: bool | None = None,
    max_norm: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
) -> Fused:
    """AdamW that steps parameters and state in place on a CPU, in one call for all arrays.

    It has what `optax.apply_updates` cannot do: moments in 2 bytes a parameter, master weights of bfloat16 parameters,
    and rounding without bias. On other devices the step is made of XLA's operations, and formats in fewer bits are
    slower there.

    Args:
        learning_rate: as for `adamas.jax.adamw`, as are b1, b2, eps, weight_decay, mask, decay, base_lr,
            cautious_decay and amsgrad.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: lambda; the default is optax's.
        mask: which parameters decay.
        decay: how weight decay follows the learning rate.
        base_lr: the learning rate that "independent" and "corrected" divide by.
        cautious_decay: leave out decay against the update.
        amsgrad: which running maximum to divide by.
        maximize: maximize the objective instead of minimizing it.
        state_dtype: how both moments are stored: "float32", "bfloat16", "packed16" (2.05 bytes a parameter for both),
            "packed12" (1.55), or "param", the dtype of the parameter. Arrays with fewer than 4,096 elements, one
            dimension, or rows under 8 elements keep float32.
        master_weight_bits: 24 or 32 to store the low bits that bfloat16 parameters lack.
        stochastic_rounding: round 16-bit parameters without bias. None: on without 32-bit master weights.
        max_norm: the limit, > 0, of the global norm of all gradients.
        ema_decay: decay of a moving average of the weights, in [0, 1): see `Fused.averages`.
        seed: seed of the random bits for rounding. They depend on the seed, the step and the element, and not on how
            arrays are sharded.

    Raises:
        ValueError: a value is out of its range, or two options exclude each other.

    Example:
        >>> params = {"w": jnp.ones((64, 128), jnp.bfloat16)}
        >>> optimizer = fused_adamw(0.1, state_dtype="packed16", master_weight_bits=24)
        >>> params, state = optimizer.step(params, optimizer.init(params), {"w": jnp.ones((64, 128), jnp.bfloat16)})
        >>> print(params["w"][0, 0], sorted(state.states["w"]))
        0.898438 ['exp_avg_scale', 'exp_avg_sq_high', 'exp_avg_sq_low', 'packed16', 'param_low']
    """
    if decay == "l2":
        raise ValueError("decay='l2' adds weight decay to the gradient: use fused_adam(weight_decay=...)")
    settings = Settings(
        learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask, decay=decay,
        base_lr=base_lr, cautious_decay=cautious_decay, amsgrad=amsgrad, maximize=maximize, ema_decay=ema_decay,
        max_norm=max_norm, seed=seed,
    )  # fmt: skip
    return _fused(settings, Request(state_dtype, master_weight_bits, stochastic_rounding))


def _fused(settings: Settings, asked: Request) -> Fused:
    values = {**asked._asdict(), "amsgrad": settings.amsgrad != "off", "differentiable": False}
    options.check_allowed({name: value for name, value in values.items() if name != "amsgrad"})
    options.check_together(values)
    return Fused(settings, asked)
