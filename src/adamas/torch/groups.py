"""Parameter groups: which keys they have, whether their values are allowed, and what a step reads from them."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from adamas.decay import USES_BASE_LR
from adamas.options import BASE_LR, GROUP_KEYS, KNOWN_KEYS, OPTIMIZER_KEYS, check_allowed
from adamas.scalars import Hyper
from adamas.state.format import check_together
from adamas.torch.dispatch import Request, check_request

Group = dict[str, Any]
TENSORS = frozenset((Tensor, torch.nn.Parameter))


def refuse_near_misses(group: Group) -> None:
    """Raise on a key that looks like a misspelt one of ours; other foreign keys are the user's and stay.

    Example:
        >>> refuse_near_misses({"wieght_decay": 0.1})
        Traceback (most recent call last):
        ...
        ValueError: parameter group key 'wieght_decay' is not known: did you mean 'weight_decay'?
    """
    unknown: list[str] = []
    for key in group:
        if key in OPTIMIZER_KEYS:
            raise ValueError(f"{key} concerns the gradients of all groups together: give it to the constructor")
        if key in KNOWN_KEYS or key[-1:].isdigit():  # beta3 is nobody's typo
            continue
        if any(key.startswith(f"{known}_") for known in KNOWN_KEYS):
            continue  # lr_scale, weight_decay_multiplier: a name of its own
        unknown.append(key)
    if not unknown:
        return
    from difflib import get_close_matches  # two milliseconds of import that few need

    for key in unknown:
        near = get_close_matches(key.lower().replace("-", "_"), KNOWN_KEYS, n=1, cutoff=0.82)
        if near:
            raise ValueError(f"parameter group key {key!r} is not known: did you mean {near[0]!r}?")


def with_plain_values(group: Group) -> Group:
    """The group with NumPy's numbers as Python's, and `betas` as a tuple: what a checkpoint can hold without pickle."""
    plain = {key: plain_number(value) if key in GROUP_KEYS else value for key, value in group.items()}
    betas = plain.get("betas")
    if betas is not None and _is_pair(betas):
        plain["betas"] = tuple(plain_number(beta) for beta in betas)  # a list changed in place would not be noticed
    return plain


def _is_pair(values: Any) -> bool:
    """Whether these are two in order: a tuple, a list, OmegaConf's ListConfig, an array."""
    return hasattr(values, "__getitem__") and not isinstance(values, str) and len(values) == 2


def plain_number(value: Any) -> Any:
    """A number of another library as Python's; tensors, and what is no number, as they are."""
    if type(value) in (bool, int, float) or isinstance(value, str | Tensor) or value is None:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()  # NumPy's numbers, and its arrays without dimensions
    return float(value) if isinstance(value, Real) else value


def check(group: Group, constructing: bool = False) -> Hyper:
    """The hyperparameters of a complete group, if all of its values are allowed; the wording begins as torch's does.

    Args:
        group: the group.
        constructing: whether its values are given by a user, not written by a scheduler: OneCycleLR and CyclicLR leave
            one beta a number beside one that is a tensor.
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
    if not has_host_scalars(group):  # the step will not read its tensors: here they are, and must be in range
        read({**group, "capturable": False, "differentiable": False})
    return read(group)


def has_host_scalars(group: Group) -> bool:
    """Whether a step's scalars are host numbers; capturable and differentiable steps keep them in tensors."""
    return not (group["capturable"] or group["differentiable"])


def read(group: Group) -> Hyper:
    """The group's values as `Hyper`, which checks their ranges.

    A tensor is read to the host unless the step is capturable or differentiable, which keep it.
    """
    as_number = has_host_scalars(group)

    def value(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return plain_number(x)
        return float(x.detach()) if as_number else x.reshape(())

    beta1, beta2 = group["betas"]
    decay = group["decay"] if group["decoupled_weight_decay"] else "l2"
    return Hyper(
        lr=value(group["lr"]),
        beta1=value(beta1),
        beta2=value(beta2),
        eps=value(group["eps"]),
        weight_decay=value(group["weight_decay"]),
        decay=decay,
        base_lr=group.get(BASE_LR, base_lr(group)) if decay in USES_BASE_LR else 0.0,
        amsgrad="raw" if group["amsgrad"] else "off",
        maximize=bool(group["maximize"]),
        ema_decay=None if group["ema_decay"] is None else value(group["ema_decay"]),
        cautious_decay=bool(group["cautious_decay"]),
    )


def extras(group: Group) -> tuple[str, ...]:
    """The tensors that a step of this group keeps of a parameter beside its moments and low bits."""
    return (*(("max_exp_avg_sq",) if group["amsgrad"] else ()), *(("ema",) if group["ema_decay"] is not None else ()))


def has_tensors(group: Group) -> bool:
    """Whether a hyperparameter may change without the group changing, as the value of a tensor does."""
    betas = group["betas"]
    if not isinstance(betas, tuple):
        return True  # a list, which may be changed in place too
    values = (group["lr"], group["weight_decay"], group["eps"], *betas)
    return not TENSORS.isdisjoint(map(type, values))


def has_names(group: Group) -> bool:
    """Whether every parameter of a group has a name: one that was edited by hand may have left names behind."""
    return "param_names" in group and len(group["param_names"] or ()) == len(group["params"])


def name_of(group: Group, place: int, fallback: str) -> str:
    """The name of a group's parameter; `fallback` where the group's parameters have none."""
    return group["param_names"][place] if has_names(group) else fallback


def base_lr(group: Group) -> float:
    """The learning rate that a group begins with."""
    lr = plain_number(group["lr"])
    return float(lr.detach()) if isinstance(lr, Tensor) else lr
