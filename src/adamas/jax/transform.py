"""Adam and AdamW as transformations of optax: they return updates, which `optax.apply_updates` adds."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamas.decay import DecayMode
from adamas.formats.names import Storage
from adamas.jax.settings import ScalarOrSchedule, Settings
from adamas.kernels import xla

State = optax.ScaleByAdamState | optax.ScaleByAmsgradState


def adam(
    learning_rate: ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    weight_decay: Any = 0.0,
    mask: Any = None,
    amsgrad: str = "off",
) -> optax.GradientTransformationExtraArgs:
    """Adam (arXiv 1412.6980), as a drop-in for `optax.adam`, with optional L2 in the gradient.

    ```
    g = gradient + weight_decay * theta
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    update = -learning_rate * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t) + eps_root) + eps)
    ```

    Args:
        learning_rate: step size, >= 0, or a schedule: a function of the number of steps taken.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: added to the root of the second moment, >= 0.
        eps_root: added inside the root, >= 0.
        mu_dtype: the dtype of the first moment; None, as in optax, for that of the parameter.
        nesterov: must be False; NAdam is another rule (`optax.nadam`).
        weight_decay: lambda, >= 0: lambda * weight is added to the gradient.
        mask: a tree of bools, or a function of the parameters that returns one: which parameters decay.
        amsgrad: "off"; "corrected": divide by the running maximum of the corrected second moment, as `optax.amsgrad`
            does; "raw": of the uncorrected one, as torch and Keras do.

    Raises:
        ValueError: a value is out of its range.

    Differences from optax:

    - Arithmetic and the second moment are float32 or wider, also for 16-bit parameters. In bfloat16 optax's second
      moment stops following the gradients.
    - Learning rate and bias corrections are computed in float64, also in a program with 32-bit types.
    - A beta that `optax.inject_hyperparams` rounds to 1 in bfloat16 counts as .99902; `hyperparam_dtype=jnp.float32`
      keeps it exact. optax's updates are NaN there.
    - Real and imaginary parts of complex parameters are stepped independently, as in torch.

    The state is optax's: `optax.ScaleByAdamState(count, mu, nu)`.

    Example:
        >>> params = {"w": jnp.array([1.0])}
        >>> optimizer = adam(0.1)
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"w": jnp.array([5.0])}, state, params)
        >>> print(optax.apply_updates(params, updates)["w"].round(6))
        [0.9]
    """
    settings = Settings(
        learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, weight_decay=weight_decay, mask=mask,
        decay="l2", base_lr=None, cautious_decay=False, amsgrad=amsgrad,
    )  # fmt: skip
    return _transformation(settings, mu_dtype, nesterov)


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    weight_decay: Any = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    amsgrad: str = "off",
    decay: DecayMode = "lr",
    base_lr: float | None = None,
    cautious_decay: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdamW (arXiv 1711.05101), as a drop-in for `optax.adamw`: weight decay does not go into the gradient.

    ```
    update = -learning_rate * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t) + eps_root) + eps) - d * theta

    d = learning_rate * weight_decay               decay="lr"
        weight_decay * learning_rate / base_lr     decay="independent"
        weight_decay * learning_rate**2 / base_lr  decay="corrected"
    ```

    Args:
        learning_rate: as for `adam`, as are b1, b2, eps, eps_root, mu_dtype, nesterov and amsgrad.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        eps_root: added inside the root.
        mu_dtype: the dtype of the first moment.
        weight_decay: lambda, >= 0. The default is optax's, 1e-4; torch's is 1e-2.
        mask: a tree of bools, or a function of the parameters that returns one: which parameters decay.
        nesterov: must be False.
        amsgrad: which running maximum to divide by.
        decay: how weight decay follows the learning rate.
        base_lr: the learning rate that "independent" and "corrected" divide by; by default the learning rate, if it is
            a number.
        cautious_decay: leave out the decay of a weight where the update has the opposite sign (arXiv 2510.12402).

    Raises:
        ValueError: a value is out of its range, or base_lr is missing.

    The differences from optax are those of `adam`.

    Example:
        >>> params = {"w": jnp.array([1.0])}
        >>> optimizer = adamw(0.1, weight_decay=0.5)
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"w": jnp.array([0.0])}, state, params)
        >>> print(updates["w"].round(6))  # without gradient, w shrinks by learning_rate * weight_decay
        [-0.05]
    """
    settings = Settings(
        learning_rate=learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, weight_decay=weight_decay, mask=mask,
        decay=decay, base_lr=base_lr, cautious_decay=cautious_decay, amsgrad=amsgrad,
    )  # fmt: skip
    if decay == "l2":
        raise ValueError("decay='l2' adds weight decay to the gradient: use adam(weight_decay=...)")
    return _transformation(settings, mu_dtype, nesterov)


class _Transformation(NamedTuple):
    """The two functions of a transformation, for one set of arguments."""

    settings: Settings
    mu_dtype: Any

    def init(self, params: Any) -> State:
        """The state before the first step: zeros in float32 or wider, each where its parameter is."""
        count, nu = jnp.zeros((), jnp.int32), jax.tree.map(_zeros, params)
        mu = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=self.mu_dtype), params)
        if self.settings.amsgrad == "off":
            return optax.ScaleByAdamState(count=count, mu=mu, nu=nu)
        return optax.ScaleByAmsgradState(count=count, mu=mu, nu=nu, nu_max=jax.tree.map(_zeros, params))

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, State]:
        """The updates to add to the parameters, and the new state."""
        del extra
        settings, amsgrad = self.settings, self.settings.amsgrad != "off"
        if params is None:
            if not {"l2", "decay"} <= settings.absent(True):
                raise ValueError("weight decay needs the parameters: call update(grads, state, params)")
            params = updates
        grads, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, updates))
        moments = [jax.tree.leaves(tree) for tree in state[1:]]
        decaying = settings.decaying(params)
        made = {decays: settings.scalars(state.count, None, decays) for decays in set(decaying)}
        changes: list[Any] = []
        new: list[tuple[Any, ...]] = []
        leaves = jax.tree.leaves(jax.tree.map(jnp.asarray, params))
        for grad, param, decays, *old in zip(grads, leaves, decaying, *moments, strict=True):
            kind = xla.Kind(Storage(), amsgrad, False, settings.cautious_decay, settings.absent(decays))
            change, *found = xla.update(kind, grad, param, tuple(old), made[decays])
            changes.append(xla.negated(change).astype(_dtype_of_update(grad, param)))
            new.append(tuple(x.astype(was.dtype) for x, was in zip(found, old, strict=True)))
        trees = [structure.unflatten(leaves) for leaves in zip(*new, strict=True)] or list(state[1:])
        return structure.unflatten(changes), type(state)(optax.safe_increment(state.count), *trees)


def _zeros(param: Any) -> Any:
    """Zeros for the second moment of a parameter, in float32 or wider."""
    return jnp.zeros_like(param, dtype=jnp.promote_types(jnp.asarray(param).dtype, jnp.float32))


def _dtype_of_update(grad: Any, param: Any) -> Any:
    """The wider dtype of a gradient and its parameter, as in optax; of integers, float32."""
    dtype = jnp.promote_types(grad.dtype, param.dtype)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.dtype("float32")


def _transformation(settings: Settings, mu_dtype: Any, nesterov: bool) -> optax.GradientTransformationExtraArgs:
    if nesterov:
        raise ValueError("nesterov=True is NAdam, which is another rule: use optax.nadam or optax.nadamw")
    functions = _Transformation(settings, None if mu_dtype is None else jnp.dtype(mu_dtype))
    return optax.GradientTransformationExtraArgs(functions.init, functions.update)
