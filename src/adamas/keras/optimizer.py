"""`Adam` and `AdamW` for Keras 3, with the arguments of `keras.optimizers`. `backend.py` steps the variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import keras

from adamas.decay import USES_BASE_LR, DecayMode
from adamas.keras.backend import steps
from adamas.kernels.functional import Tensors
from adamas.scalars import Hyper

BaseOptimizer: Any = keras.optimizers.Optimizer
Schedule: Any = keras.optimizers.schedules.LearningRateSchedule
EPSILON = {None: 1e-8, "keras": 1e-7}  # the default of each convention
WEIGHT_DECAY = {None: 1e-2, "keras": 4e-3}  # AdamW's default in each convention
WIDE = ("float32", "float64")  # the dtypes of moments, averages and accumulated gradients
BASE_ARGUMENTS = (  # what Keras's base class takes
    "learning_rate", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum",
    "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps", "name",
)  # fmt: skip


def _path(variable: Any) -> str:
    """Return the path of a variable, which names it in its model."""
    return getattr(variable, "path", variable.name)


def _base_lr(learning_rate: Any, given: float | None, decay: DecayMode) -> float | None:
    """Return the learning rate that a schedule starts from, where weight decay depends on it."""
    if given is not None or decay not in USES_BASE_LR:
        return given
    first = learning_rate(0) if isinstance(learning_rate, Schedule) else learning_rate
    value: Any = keras.ops.convert_to_numpy(first() if callable(first) else first)
    return float(value)


@keras.saving.register_keras_serializable(package="adamas")
class Adam(BaseOptimizer):
    """Adam (arXiv 1412.6980) for Keras, with weight decay as L2 in the gradient.

    ```
    g = gradient + weight_decay * theta
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    theta = theta - learning_rate * (m / (1 - beta_1**t)) / (sqrt(v / (1 - beta_2**t)) + epsilon)
    ```

    Args:
        learning_rate: a float, a `LearningRateSchedule`, or a function without arguments that returns the rate.
        beta_1: the decay of the first moment, in [0, 1).
        beta_2: the decay of the second moment, in [0, 1).
        epsilon: added to the root, >= 0. None is 1e-8, or 1e-7 with like="keras".
        amsgrad: whether to divide by the root of the largest v so far, as Keras and torch do.
        weight_decay: lambda, >= 0; None for no decay.
        clipnorm: the limit of the norm of each gradient.
        clipvalue: the limit of the absolute value of each element of a gradient.
        global_clipnorm: the limit of the norm of all gradients together.
        use_ema: whether to keep a moving average of the weights, as Keras does.
        ema_momentum: the decay of that average, in [0, 1).
        ema_overwrite_frequency: the number of steps after which the average replaces the weights; None for never.
        loss_scale_factor: a constant that the loss is multiplied by and gradients are divided by.
        gradient_accumulation_steps: the number of calls whose mean gradient makes one step.
        name: the name of the optimizer.
        cautious_decay: whether to decay a weight only where its update has the same sign as the weight.
        like: None for torch's conventions. "keras" for those of `keras.optimizers`: epsilon is added before the bias
            correction of v, the defaults are Keras's, and Adam's weight decay does not go into the gradient.

    Raises:
        ValueError: a value is out of its range.

    Differences from `keras.optimizers.Adam`, also with like="keras":

    - Moments, averages, accumulated gradients and arithmetic are float32 or wider, also for 16-bit variables. Factors
      of a step are computed in float64.
    - A sparse gradient gives exactly what the dense gradient gives.
    - `exclude_from_weight_decay` survives saving and loading.
    - A learning rate of 0 changes no variable.

    Example:
        >>> weight = keras.Variable([1.0])
        >>> optimizer = Adam(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.array([3.0])], [weight])
        >>> print(keras.ops.convert_to_numpy(weight.value).round(6))
        [0.9]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = None,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        cautious_decay: bool = False,
        like: Literal["keras"] | None = None,
        **options: Any,
    ) -> None:
        decay: DecayMode = "lr" if like == "keras" else "l2"
        self._construct(locals(), decay, None)

    def _construct(self, given: dict[str, Any], decay: DecayMode, base_lr: float | None) -> None:
        """Initialize from the constructor's arguments, with the rule of weight decay that the class decides."""
        like, learning_rate = given["like"], given["learning_rate"]
        if like not in EPSILON:
            raise ValueError(f"like={like!r} must be None (torch's conventions) or 'keras'")
        BaseOptimizer.__init__(self, **{name: given[name] for name in BASE_ARGUMENTS}, **given["options"])
        self.beta_1, self.beta_2 = given["beta_1"], given["beta_2"]
        self.epsilon = EPSILON[like] if given["epsilon"] is None else given["epsilon"]
        self.amsgrad, self.cautious_decay = given["amsgrad"], given["cautious_decay"]
        self.like = like
        self.decay: DecayMode = decay
        self.base_lr = _base_lr(learning_rate, base_lr, decay)
        self._excluded_names: tuple[str, ...] = ()
        self._excluded_variables: tuple[int | str, ...] = ()  # indices or paths
        self._steps = steps()
        self._hyper(learning_rate if isinstance(learning_rate, float) else 0.0)

    def _hyper(self, lr: float = 0.0) -> Hyper:
        """Return the present hyperparameters, checked. The learning rate of a step is given to the step itself."""
        return Hyper(
            lr=lr,
            beta1=self.beta_1,
            beta2=self.beta_2,
            eps=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
            decay=self.decay,
            base_lr=self.base_lr or 0.0,
            amsgrad="raw" if self.amsgrad else "off",
            eps_mode="hat" if self.like == "keras" else "alg1",
            ema_decay=self.ema_momentum if self.use_ema else None,
            cautious_decay=self.cautious_decay,
        )

    def add_variable(self, shape: Any, initializer: Any = "zeros", dtype: Any = None, **options: Any) -> Any:
        """Add a variable of the optimizer; one like a 16-bit variable of the model is float32."""
        name = keras.backend.standardize_dtype(dtype)
        wide = "float32" if "float" in name and name not in WIDE else dtype
        return super().add_variable(shape, initializer, wide, **options)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the moments of these variables, in the order in which `keras.optimizers.Adam` makes them."""
        if self.built:
            return
        super().build(variables)
        given = self._excluded_variables
        self._excluded_indices = tuple(i for i, x in enumerate(variables) if i in given or _path(x) in given)
        self._decays = tuple(
            self._use_weight_decay(x) and i not in self._excluded_indices for i, x in enumerate(variables)
        )
        moments = [(self._zeros(x, "momentum"), self._zeros(x, "velocity")) for x in variables]
        self._momentums = [m for m, _ in moments]
        self._velocities = [v for _, v in moments]
        if self.amsgrad:
            self._velocity_hats = [self._zeros(x, "velocity_hat") for x in variables]

    def _zeros(self, variable: Any, name: str) -> Any:
        """Return a new moment of a variable; None for a variable that its gradient overwrites (float8 scales)."""
        if getattr(variable, "overwrite_with_gradient", False):
            return None
        return self.add_variable_from_reference(variable, name=name)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update variables with these gradients.

        Args:
            grads: the gradients, in the order of the variables; None for a variable without one.
            trainable_variables: the variables; None for those that the optimizer was built with.
        """
        dense = [None if grad is None else self._steps.dense(grad) for grad in grads]
        super().apply(dense, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its moments."""
        self._update([gradient], [variable], learning_rate)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Update all variables in one call, or under a strategy of distribution each in its own."""
        if self._steps.alone():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            self._update(grads, trainable_variables, learning_rate)

    def _update(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        """Update variables and their moments."""
        decaying = replace(self._hyper(), ema_decay=None)
        kept = replace(decaying, weight_decay=0.0, decay="none", cautious_decay=False)
        kinds = {True: decaying if self.weight_decay else kept, False: kept}
        indices = [self._get_variable_index(x) for x in variables]
        found = [
            Tensors(x, self._momentums[i], self._velocities[i], self._velocity_hats[i] if self.amsgrad else None)
            for i, x in zip(indices, variables, strict=True)
        ]
        hypers = [kinds[self._decays[i]] for i in indices]
        self._steps.step(hypers, found, list(grads), learning_rate, self.iterations)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing, because the update itself decays weights."""

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        """Move the averages of the weights."""
        if self.use_ema:
            pairs = zip(trainable_variables, self._model_variables_moving_average, strict=True)
            kept = [(x, ema) for x, ema in pairs if ema is not None]
            self._steps.move_averages(self._hyper(), [x for x, _ in kept], [ema for _, ema in kept], self.iterations)

    def _overwrite_model_variables_with_average_value(self, trainable_variables: Any) -> None:
        """Replace the weights by their averages."""
        averages = self._model_variables_moving_average
        pairs = [(x, ema) for x, ema in zip(trainable_variables, averages, strict=True) if ema is not None]
        self._steps.overwrite([x for x, _ in pairs], [ema for _, ema in pairs])

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Sequence[str] | None = None) -> None:
        """Exclude variables from weight decay, also after the optimizer is saved and loaded.

        Args:
            var_list: the variables to exclude.
            var_names: regular expressions. A variable is excluded if one of them is found in its name.

        Raises:
            ValueError: the optimizer is built already, with other exclusions.
        """
        names, variables = tuple(var_names or ()), tuple(_path(x) for x in var_list or ())
        if self.built and (names, variables) != (self._excluded_names, self._excluded_variables):
            raise ValueError("exclude_from_weight_decay must be called before the optimizer is built: make a new one")
        if not self.built:
            super().exclude_from_weight_decay(var_list, var_names)
            self._excluded_names, self._excluded_variables = names, variables

    def get_config(self) -> dict[str, Any]:
        """Return the arguments and the exclusions from weight decay, for saving."""
        variables = self._excluded_variables
        if self.built:  # indices, because paths differ between two copies of a model
            variables = self._excluded_indices  # those excluded by name alone are found by name again
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
            "cautious_decay": self.cautious_decay,
            "like": self.like,
            "excluded_from_weight_decay": {"names": list(self._excluded_names), "variables": list(variables)},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Return an optimizer with the arguments and exclusions that `get_config` returned."""
        config = dict(config)
        excluded = config.pop("excluded_from_weight_decay", None)
        optimizer = super().from_config(config, custom_objects)
        if excluded is not None and (excluded["names"] or excluded["variables"]):
            optimizer.exclude_from_weight_decay(var_names=excluded["names"])
            optimizer._excluded_variables = tuple(excluded["variables"])
        return optimizer


@keras.saving.register_keras_serializable(package="adamas")
class AdamW(Adam):
    """AdamW (arXiv 1711.05101) for Keras: Adam with weight decay that does not go into the gradient.

    ```
    m = beta_1 * m + (1 - beta_1) * gradient
    v = beta_2 * v + (1 - beta_2) * gradient**2
    theta = theta - learning_rate * (m / (1 - beta_1**t)) / (sqrt(v / (1 - beta_2**t)) + epsilon) - d * theta

    d = learning_rate * weight_decay               decay="lr"
        weight_decay * learning_rate / base_lr     decay="independent"
        weight_decay * learning_rate**2 / base_lr  decay="corrected"
    ```

    The arguments of `Adam`, and:

    Args:
        weight_decay: lambda, >= 0. "default" is 0.01, or 0.004 with like="keras".
        decay: the rule of weight decay, see above.
        base_lr: the learning rate that a schedule starts from, > 0. None is the learning rate at construction, or a
            schedule's at step 0: for a schedule that warms up, give its peak.

    Raises:
        ValueError: as for `Adam`; also for decay="independent" without a weight_decay.

    The differences from Keras are those of `Adam`.

    Example:
        >>> weight = keras.Variable([1.0])
        >>> optimizer = AdamW(learning_rate=0.1, weight_decay=0.5)
        >>> optimizer.apply([keras.ops.zeros(1)], [weight])  # without gradient it shrinks by 5 %
        >>> print(keras.ops.convert_to_numpy(weight.value).round(6))
        [0.95]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | Literal["default"] = "default",
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = None,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        decay: Literal["lr", "independent", "corrected"] = "lr",
        base_lr: float | None = None,
        cautious_decay: bool = False,
        like: Literal["keras"] | None = None,
        **options: Any,
    ) -> None:
        if weight_decay is None:  # pyright: ignore[reportUnnecessaryComparison] - Keras's words
            raise ValueError("Argument `weight_decay` must be a float. Received: weight_decay=None")
        if decay not in ("lr", *USES_BASE_LR):
            raise ValueError(f"decay={decay!r} must be 'lr', 'independent' or 'corrected'; for 'l2' use Adam")
        if weight_decay == "default" and decay == "independent":
            raise ValueError(
                "decay='independent' needs weight_decay given: the default would shrink weights by 1 % a step. "
                "adamas.decay.to_independent(weight_decay, lr) converts Keras's"
            )
        given = {**locals(), "weight_decay": WEIGHT_DECAY.get(like, 0.0) if weight_decay == "default" else weight_decay}
        self._construct(given, decay, base_lr)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments and the exclusions from weight decay, for saving."""
        return {**super().get_config(), "decay": self.decay, "base_lr": self.base_lr}
