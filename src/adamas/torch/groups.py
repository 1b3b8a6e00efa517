"""Parameter groups: which keys they have, what values are allowed, and what a step reads from them."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from adamas.scalars import Hyper
from adamas.torch.dispatch import Request, check_request
from adamas.torch.storage import STORAGE_KEYS, check_storage

Group = dict[str, Any]

# What a step reads from a group; compared each step, so that whatever a scheduler or a user changed takes effect.
HYPER_KEYS = (
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "maximize",
    "decoupled_weight_decay",
    "decay",
    "decay_base_lr",
    "ema_decay",
    "seed",
)
FLAG_KEYS = ("amsgrad", "foreach", "capturable", "differentiable", "fused", "kernel", *STORAGE_KEYS)
# Decided at construction: a checkpoint does not change them.
CONSTRUCTED_KEYS = (
    "decoupled_weight_decay",
    "decay",
    "ema_decay",
    "foreach",
    "capturable",
    "differentiable",
    "fused",
    "kernel",
    *STORAGE_KEYS,
)
KNOWN_KEYS = ("params", "param_names", *HYPER_KEYS, *FLAG_KEYS)
WHOLE_KEYS = ("max_norm", "skip_nonfinite")  # of the optimizer as a whole, not of a group
TENSORS = frozenset((Tensor, torch.nn.Parameter))

# AdamW's default, told from an explicit 0.01 by identity: `decay="independent"` must not take it silently.
DEFAULT_WEIGHT_DECAY = float("1e-2")


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
        if key in WHOLE_KEYS:
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


def check(group: Group) -> Hyper:
    """The hyperparameters of a complete group, if all of its values are allowed; the wording begins as torch's does."""
    lr, betas = group["lr"], group["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas={betas!r} must be a pair (beta1, beta2)")
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError(f"betas must be either both floats or both Tensors, not {betas!r}")
    listwise = group["foreach"] and not group["capturable"]
    for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
        if isinstance(value, Tensor) and listwise:
            raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element")
    for flag in ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay"):
        if not isinstance(group[flag], bool | int):
            raise ValueError(f"{flag}={group[flag]!r} must be True or False")
    for flag in ("foreach", "fused"):
        if group[flag] not in (None, True, False):
            raise ValueError(f"{flag}={group[flag]!r} must be None, True or False")
    if group["decay"] not in ("lr", "independent"):
        raise ValueError(f"decay={group['decay']!r} must be 'lr' or 'independent'; for L2 in the gradient use Adam")
    check_request(Request(group["kernel"], group["fused"], group["foreach"]))
    check_storage(group)
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
            return x if type(x) in (bool, int, float) or not isinstance(x, Real) else float(x)  # NumPy's numbers
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
        base_lr=group.get("decay_base_lr", base_lr(group)) if decay == "independent" else 0.0,
        amsgrad="raw" if group["amsgrad"] else "off",
        maximize=bool(group["maximize"]),
        ema_decay=None if group["ema_decay"] is None else value(group["ema_decay"]),
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


def refuse_integers(params: list[Any]) -> None:
    """Raise on a parameter that has no gradient by its dtype."""
    for i, entry in enumerate(params):
        name, param = entry if isinstance(entry, tuple) else (f"parameter {i}", entry)
        if isinstance(param, Tensor) and not (param.is_floating_point() or param.is_complex()):
            raise ValueError(
                f"{name} is {param.dtype}: an optimizer needs floating point or complex tensors. "
                "Pass [p for p in model.parameters() if p.requires_grad]"
            )


def base_lr(group: Group) -> float:
    """The learning rate a group begins with, by which `decay="independent"` divides."""
    lr = group["lr"]
    return float(lr.detach()) if isinstance(lr, Tensor) else lr
