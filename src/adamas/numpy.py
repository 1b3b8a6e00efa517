"""Adam and AdamW for NumPy: parameters are a dict, a list or one array, and are stepped in place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np

from adamas import options
from adamas.decay import USES_BASE_LR
from adamas.formats.names import Request, Storage, storage_for
from adamas.kernels import arrays, functional
from adamas.options import DEFAULT_WEIGHT_DECAY, documented
from adamas.scalars import Hyper, StepScalars, check_max_norm, grad_factor, norm_of
from adamas.uninterrupted import Uninterrupted

Array = np.ndarray[Any, Any]
CHANGEABLE = ("lr", "betas", "eps", "weight_decay")
DTYPES = ("float64", "float32", "bfloat16", "float16")


@documented
class Adam:
    """Adam (arXiv 1412.6980) for NumPy, with weight decay as L2 in the gradient.

    ```
    g = gradient + weight_decay * theta
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    theta = theta - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
    ```

    Args:
        params: the parameters: an array, or dicts, lists and tuples of arrays, nested as you like. Arrays are float64,
            float32, float16, or bfloat16 of ml_dtypes, and writable.
        {arguments}

    `lr`, `betas`, `eps` and `weight_decay` are attributes, which may be changed between steps.

    Raises:
        ValueError: a value is out of its range, or a parameter has another dtype, is read-only, or shares memory with
            another one.

    Example:
        >>> weight = np.array([1.0])
        >>> optimizer = Adam(weight, lr=0.1)
        >>> optimizer.step(np.array([5.0]))  # the first step is lr * sign(gradient)
        >>> print(weight.round(6))
        [0.9]
    """

    _decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        state_dtype: str = "float32",
        master_weight_bits: int | None = None,
        stochastic_rounding: bool | None = None,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        self._construct(params, {name: value for name, value in locals().items() if name not in ("self", "params")})

    def _construct(self, params: Any, given: dict[str, Any]) -> None:
        given = {"decay": "l2", "cautious_decay": False, **given}
        given.pop("__class__", None)
        options.check_allowed({name: x for name, x in given.items() if name != "decay" or self._decoupled})
        options.check_together({**given, "differentiable": False})
        check_max_norm(given["max_norm"])
        self.lr, self.betas, self.eps = given["lr"], given["betas"], given["eps"]
        self.weight_decay, self.max_norm = given["weight_decay"], given["max_norm"]
        self._options = given
        self._base_lr = given["lr"] if given["decay"] in USES_BASE_LR else 0.0
        self._hyper()
        self.params = params
        asked = Request(*(given[name] for name in Request._fields))
        self._arrays = named(params)
        self._storages: dict[str, Storage] = {}
        for name, array in self._arrays.items():
            _check_parameter(name, array)
            self._storages[name] = storage_for(str(array.dtype), array.shape, asked)
            options.check_stored(name, str(array.dtype), self._storages[name], given)
        _check_apart(self._arrays)
        self._state: dict[str, dict[str, Array]] = {}
        self._steps: dict[str, int] = {}
        self._inside: int | None = None  # the thread that is inside of step()
        self.grad_norm: float | None = None  # of the last step with max_norm, before clipping

    def _hyper(self) -> Hyper:
        """The present hyperparameters, after a check of their ranges."""
        given, betas = self._options, self.betas
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"betas={betas!r} must be a pair (beta1, beta2)")
        return Hyper(
            lr=_number(self.lr),
            beta1=_number(betas[0]),
            beta2=_number(betas[1]),
            eps=_number(self.eps),
            weight_decay=_number(self.weight_decay),
            decay=given["decay"],
            base_lr=_number(self._base_lr),
            amsgrad="raw" if given["amsgrad"] else "off",
            maximize=bool(given["maximize"]),
            ema_decay=_number(given["ema_decay"]),
            cautious_decay=bool(given["cautious_decay"]),
        )

    def step(self, grads: Any) -> None:
        """Take one step, in place.

        Args:
            grads: the gradients, in the structure of the parameters. A None, or a missing key of a dict, leaves its
                parameter and its state as they are.

        Raises:
            ValueError: a gradient has another shape than its parameter, or no parameter. Nothing was changed then.
        """
        # Not a lock: Ctrl-C between taking it and `try` would leave it taken, and locks cannot be copied.
        if self._inside not in (None, threading.get_ident()):
            raise RuntimeError("another thread is inside step(): step an optimizer from one thread at a time")
        try:
            self._inside = threading.get_ident()
            self._step(self._matched(grads), self._hyper())
        finally:
            self._inside = None

    def _matched(self, grads: Any) -> dict[str, Array]:
        """The gradients by name, each with the shape of its parameter."""
        params = self._arrays
        _check_lengths(self.params, grads, "grads")
        found: dict[str, Array] = {}
        for name, grad in _arrays(grads, ""):
            if grad is None:
                continue
            if name not in params:
                raise ValueError(f"there is a gradient {name!r} and no such parameter: there are {', '.join(params)}")
            grad, shape = np.asarray(grad), params[name].shape
            if grad.shape != shape:
                raise ValueError(f"the gradient of {name} has shape {grad.shape}, the parameter {shape}")
            if grad.dtype.kind not in "fiuV":
                raise ValueError(f"the gradient of {name} is {grad.dtype}: it must be real numbers")
            found[name] = grad if grad.dtype == params[name].dtype else grad.astype(params[name].dtype)
        return found

    def _step(self, grads: dict[str, Array], hyper: Hyper) -> None:
        buckets: dict[Any, list[str]] = {}
        params = self._arrays
        for name in grads:
            if name not in self._state:
                self._state[name] = self._begun(name)
            key = (params[name].dtype, self._storages[name], self._steps.get(name, 0))
            buckets.setdefault(key, []).append(name)
        amsgrad, averages = hyper.amsgrad != "off", hyper.ema_decay is not None
        prepared = arrays.apart([
            arrays.prepare(
                arrays.Bucket(
                    storage,
                    amsgrad,
                    averages,
                    [params[name] for name in names],
                    [grads[name] for name in names],
                    [self._state[name] for name in names],
                )
            )
            for (_, storage, _), names in buckets.items()
        ])  # fmt: skip
        factor, norm = 1.0, self.grad_norm
        if self.max_norm is not None:
            check_max_norm(self.max_norm)
            norm = norm_of([x for bucket in prepared for x in arrays.squares(bucket)])
            factor = grad_factor(1.0, norm, self.max_norm)
        with Uninterrupted():  # a step and its count are one change
            for (_, _, steps), bucket in zip(buckets, prepared, strict=True):
                arrays.step(bucket, StepScalars.of(hyper, steps + 1, factor, steps == 0, self._options["seed"]))
            for name in grads:
                self._steps[name] = self._steps.get(name, 0) + 1
            self.grad_norm = norm

    def _begun(self, name: str) -> dict[str, Array]:
        """The state of a parameter before its first step: zeros."""
        param, storage, given = self._arrays[name], self._storages[name], self._options
        state = functional.zeros(np, storage, param.shape, str(param.dtype))
        wide = np.float64 if param.dtype == np.float64 else np.float32
        order = "F" if param.flags.f_contiguous and storage.plain else "C"
        if storage.plain:
            state = {name: np.zeros(param.shape, wide, order) for name in state}
        if given["amsgrad"]:
            state["max_exp_avg_sq"] = np.zeros(param.shape, wide, order)
        if given["ema_decay"] is not None:
            state["ema"] = np.array(param, wide, order=order)  # a copy, until the first step makes another one
        return state

    def averages(self) -> Any:
        """The moving averages of the weights (`ema_decay`), in the structure of the parameters; copies.

        Raises:
            RuntimeError: no average is kept. Give ema_decay at construction.
        """
        if self._options["ema_decay"] is None:
            raise RuntimeError("no average of the weights is kept: give ema_decay at construction")
        found = {
            name: self._state[name]["ema"].copy() if name in self._state else array.copy()
            for name, array in self._arrays.items()
        }
        return _like(self.params, found, "")

    def moments(self) -> tuple[Any, Any]:
        """Copies of both moments in float32 or wider, without bias correction, in the structure of the parameters."""
        first: dict[str, Array] = {}
        second: dict[str, Array] = {}
        for name, array in self._arrays.items():
            state = self._state.get(name) or self._begun(name)
            first[name], second[name] = functional.moments(self._storages[name], state, array)
        return _like(self.params, first, ""), _like(self.params, second, "")

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the state of each parameter, by name, and the hyperparameters; the arrays are copies.

        The names of nested parameters are joined by slashes: {"layers": [w]} has "layers/0".
        """
        hyper = {"lr": self.lr, "betas": tuple(self.betas), "eps": self.eps, "weight_decay": self.weight_decay}
        states = {name: self._state.get(name) or self._begun(name) for name in self._arrays}
        return {
            "step": {name: self._steps.get(name, 0) for name in self._arrays},
            "state": {name: {key: x.copy() for key, x in state.items()} for name, state in states.items()},
            "hyper": {**self._options, **hyper, "base_lr": self._base_lr},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned: state, steps, and lr, betas, eps and weight_decay.

        Decay mode and formats stay those of this optimizer.

        Raises:
            ValueError: a name, an array or a shape does not fit. Nothing was changed then.
        """
        steps, loaded, params = state_dict["step"], state_dict["state"], self._arrays
        if not params.keys() == loaded.keys() == steps.keys():
            others = sorted(params.keys() ^ loaded.keys() | params.keys() ^ steps.keys())
            raise ValueError(f"the names of parameters and of their saved state differ in {', '.join(others)}")
        state: dict[str, dict[str, Array]] = {}
        for name, mine in loaded.items():
            blank = self._begun(name)
            if set(mine) != set(blank):
                raise ValueError(f"the state of {name} has {sorted(mine)}; this optimizer needs {sorted(blank)}")
            for key, array in blank.items():
                given = np.asarray(mine[key])
                if given.shape != array.shape or given.dtype != array.dtype:
                    raise ValueError(
                        f"{key} of {name} is {given.dtype} of shape {given.shape}: it must be {array.dtype} of shape "
                        f"{array.shape}"
                    )
                array[...] = given
            state[name] = blank
        for name, count in steps.items():
            if not isinstance(count, Integral) or count < 0:
                raise ValueError(f"step={count!r} of {name} must be a number of steps, >= 0")
        hyper, before = state_dict.get("hyper", {}), {name: getattr(self, name) for name in CHANGEABLE}
        base_lr = hyper.get("base_lr", self._base_lr) or self._base_lr
        before_base, self._base_lr = self._base_lr, base_lr
        try:
            for name in CHANGEABLE:
                setattr(self, name, hyper.get(name, before[name]))
            self._hyper()
        except ValueError:
            vars(self).update(before, _base_lr=before_base)
            raise
        self._state, self._steps = state, {name: int(count) for name, count in steps.items()}


@documented
class AdamW(Adam):
    """AdamW (arXiv 1711.05101) for NumPy: Adam with weight decay that does not go into the gradient.

    ```
    theta = theta - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps) - d * theta

    d = lr * weight_decay               decay="lr"
        weight_decay * lr / base_lr     decay="independent"
        weight_decay * lr**2 / base_lr  decay="corrected"
    ```

    Args:
        params: as for `Adam`.
        {arguments}

    Example:
        >>> layers = {"w": np.array([1.0, -2.0]), "b": np.array([1.0])}
        >>> optimizer = AdamW(layers, lr=0.1, weight_decay=0.5)
        >>> optimizer.step({"w": np.zeros(2)})  # without gradient, w shrinks by lr * weight_decay = 5 %
        >>> print(layers["w"].round(6), layers["b"])
        [ 0.95 -1.9 ] [1.]
    """

    _decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = DEFAULT_WEIGHT_DECAY,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decay: str = "lr",
        cautious_decay: bool = False,
        state_dtype: str = "float32",
        master_weight_bits: int | None = None,
        stochastic_rounding: bool | None = None,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
    ) -> None:
        if decay == "independent" and weight_decay is DEFAULT_WEIGHT_DECAY:
            raise ValueError(options.NEEDS_WEIGHT_DECAY)
        self._construct(params, {name: value for name, value in locals().items() if name not in ("self", "params")})


def _check_parameter(name: str, array: Any) -> None:
    """Raise ValueError on a parameter that cannot be stepped in place."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is {type(array).__name__}: parameters must be NumPy arrays, written in place")
    if str(array.dtype) not in DTYPES or not array.dtype.isnative:
        raise ValueError(f"{name} is {array.dtype}: parameters must be one of {', '.join(DTYPES)}")
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only: parameters are stepped in place, so pass a writable copy")


def _number(value: Any) -> Any:
    """Python's number for one of NumPy; other values are returned as they are, for `Hyper` to refuse."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.shape == () else value


def _arrays(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of dicts, lists and tuples with their names."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _arrays(value, f"{name}/{key}" if name else str(key))
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _arrays(value, f"{name}/{i}" if name else str(i))
    else:
        yield name or "param", tree


def named(params: Any) -> dict[str, Any]:
    """The arrays of nested dicts, lists and tuples by name: keys and places with slashes between them.

    Raises:
        ValueError: two arrays have the same name.
    """
    pairs = list(_arrays(params, ""))
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two parameters are called {twice}: names of nested parameters are joined by slashes")
    return found


def _check_lengths(params: Any, grads: Any, name: str) -> None:
    """Raise ValueError on a list of gradients that is shorter or longer than its list of parameters."""
    if isinstance(params, dict) and isinstance(grads, dict):
        for key in params.keys() & grads.keys():
            _check_lengths(params[key], grads[key], f"{name}/{key}")
    elif isinstance(params, list | tuple) and isinstance(grads, list | tuple):
        if len(params) != len(grads):
            raise ValueError(f"{name} has {len(grads)} entries for {len(params)} parameters: use None for no gradient")
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            _check_lengths(param, grad, f"{name}/{i}")


def _like(tree: Any, found: dict[str, Any], name: str) -> Any:
    """Return the structure of a tree with these leaves, by name."""
    if isinstance(tree, dict):
        return {key: _like(value, found, f"{name}/{key}" if name else str(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_like(value, found, f"{name}/{i}" if name else str(i)) for i, value in enumerate(tree)]
    return found[name or "param"]


def _check_apart(named: dict[str, Array]) -> None:
    """Raise ValueError where two parameters share memory: one step would then step some numbers twice."""
    before: list[tuple[int, str]] = []  # the ends and names of parameters that begin earlier
    for name, array in sorted(named.items(), key=lambda item: item[1].ctypes.data):
        begin, end = np.lib.array_utils.byte_bounds(array)
        before = [other for other in before if other[0] > begin]
        for _, other in before:
            if np.shares_memory(named[other], array):
                raise ValueError(f"{other} and {name} share memory: pass each parameter once")
        before.append((end, name))
