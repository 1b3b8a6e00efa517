"""Parameter groups: their keys, the check of their values, and the values that a step reads."""

from __future__ import annotations

from numbers import Real
from typing import Any

from torch import Tensor

from adamas.decay import USES_BASE_LR
from adamas.options import BASE_LR, GROUP_KEYS, KNOWN_KEYS, OPTIMIZER_KEYS, check_allowed, check_together
from adamas.scalars import Hyper
from adamas.state.format import Group
from adamas.state.layout import ORDINARY
from adamas.torch.dispatch import Request, check_request

_TENSOR_TYPES = frozenset(ORDINARY)
_PREFIXES = tuple(f"{key}_" for key in KNOWN_KEYS)


def refuse_near_misses(group: Group) -> None:
    """Raise ValueError on a key that looks like a misspelt one of ours. Other foreign keys are kept.

    Example:
        >>> refuse_near_misses({"wieght_decay": 0.1})
        Traceback (most recent call last):
        ...
        ValueError: parameter group key 'wieght_decay' is not known: did you mean 'weight_decay'?
    """
    for key in OPTIMIZER_KEYS:
        if key in group:
            raise ValueError(f"{key} concerns the gradients of all groups together: give it to the constructor")
    # Not misspelt: beta3 ends in a digit, lr_scale and weight_decay_multiplier begin with a known key.
    unknown = [key for key in group if not (key in KNOWN_KEYS or key[-1:].isdigit() or key.startswith(_PREFIXES))]
    if not unknown:
        return
    from difflib import get_close_matches  # imported here, because it takes two milliseconds

    for key in unknown:
        near = get_close_matches(key.lower().replace("-", "_"), KNOWN_KEYS, n=1, cutoff=0.82)
        if near:
            raise ValueError(f"parameter group key {key!r} is not known: did you mean {near[0]!r}?")


def with_plain_values(group: Group) -> Group:
    """A copy of the group with Python's numbers for NumPy's and `betas` as a tuple, for checkpoints without pickle."""
    plain = {key: plain_number(value) if key in GROUP_KEYS else value for key, value in group.items()}
    betas = plain.get("betas")
    if betas is not None and _is_pair(betas):
        plain["betas"] = tuple(plain_number(beta) for beta in betas)  # steps do not notice changes inside a list
    return plain


def _is_pair(values: Any) -> bool:
    """Whether the values are two in order, as in a tuple, a list, OmegaConf's ListConfig or an array."""
    return hasattr(values, "__getitem__") and not isinstance(values, str) and len(values) == 2


def plain_number(value: Any) -> Any:
    """Python's number for another library's. Tensors, and values that are no numbers, are returned as they are."""
    if type(value) in (bool, int, float) or isinstance(value, str | Tensor) or value is None:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()  # a number or a 0-d array of NumPy
    return float(value) if isinstance(value, Real) else value


def check(group: Group, constructing: bool = False) -> Hyper:
    """The hyperparameters of a complete group, after a check of all its values. Errors begin with torch's wording.

    After construction, OneCycleLR and CyclicLR may make one of two tensor betas a number.
    """
    lr, betas = group["lr"], group["betas"]
    if not _is_pair(betas):
        raise ValueError(f"betas={betas!r} must be a pair (beta1, beta2)")
    if constructing and isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError(f"betas must be either both floats or both Tensors, not {betas!r}")
    listwise = group["foreach"] and not group["capturable"]
    for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
        if isinstance(value, Tensor) and listwise:
            raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element")
    check_allowed({key: group[key] for key in GROUP_KEYS})
    check_request(Request(group["kernel"], group["fused"], group["foreach"]))
    check_together(group)
    if group["ema_decay"] is not None and group["differentiable"]:
        raise ValueError("ema_decay is not for differentiable=True: average the weights outside of the step")
    if group["fused"] and group["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if group["fused"] and group["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if not has_host_scalars(group):  # the step does not read tensors, so their ranges are checked here
        read({**group, "capturable": False, "differentiable": False})
    return read(group)


def has_host_scalars(group: Group) -> bool:
    """Whether a step's scalars are numbers on the host. Capturable and differentiable steps keep them in tensors."""
    return not (group["capturable"] or group["differentiable"])


def read(group: Group) -> Hyper:
    """The group's values as `Hyper`, which checks their ranges.

    Tensors become numbers, unless the step is capturable or differentiable.
    """
    as_number = has_host_scalars(group)

    def value(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return plain_number(x)
        return float(x.detach()) if as_number else x.reshape(())

    beta1, beta2 = map(value, group["betas"])
    decay = group["decay"] if group["decoupled_weight_decay"] else "l2"
    return Hyper(
        beta1=beta1,
        beta2=beta2,
        decay=decay,
        base_lr=group.get(BASE_LR, base_lr(group)) if decay in USES_BASE_LR else 0.0,
        amsgrad="raw" if group["amsgrad"] else "off",
        maximize=bool(group["maximize"]),
        cautious_decay=bool(group["cautious_decay"]),
        **{key: value(group[key]) for key in ("lr", "eps", "weight_decay", "ema_decay")},
    )


def extras(group: Group) -> tuple[str, ...]:
    """The names of the tensors that a step of this group needs besides moments and low bits."""
    return (*(("max_exp_avg_sq",) if group["amsgrad"] else ()), *(("ema",) if group["ema_decay"] is not None else ()))


def has_tensors(group: Group) -> bool:
    """Whether a hyperparameter is a tensor or a list: contents of both may change while the group stays equal."""
    betas = group["betas"]
    if not isinstance(betas, tuple):
        return True
    values = (group["lr"], group["weight_decay"], group["eps"], *betas)
    return not _TENSOR_TYPES.isdisjoint(map(type, values))


def has_names(group: Group) -> bool:
    """Whether each parameter of a group has a name. After an edit by hand the numbers of both may differ."""
    return "param_names" in group and len(group["param_names"] or ()) == len(group["params"])


def name_of(group: Group, place: int, fallback: str) -> str:
    """The name of the parameter at a place of a group; `fallback` where the group has no names."""
    return group["param_names"][place] if has_names(group) else fallback


def base_lr(group: Group) -> float:
    """The present learning rate of a group as a number."""
    lr = plain_number(group["lr"])
    return float(lr.detach()) if isinstance(lr, Tensor) else lr
