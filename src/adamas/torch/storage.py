"""How the state of a parameter is stored, from what its group asks for: pure functions."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from adamas.formats.names import is_large
from adamas.kernels.bucket import Storage

STORAGE_KEYS = ("state_dtype", "master_weight_bits", "stochastic_rounding")
STATE_DTYPES = ("float32", "bfloat16", "packed16", "packed12", "param")
HALF = (torch.bfloat16, torch.float16)


def storage_of(param: Tensor, group: dict[str, Any]) -> Storage:
    """The storage of a parameter's moments and weight.

    Moments are float32, or as wide as a wider parameter, where the tensor has fewer than 4,096 elements, one dimension
    or rows of fewer than 64: fewer bits would save next to nothing there. `state_dtype="param"` makes no exceptions.

    Example:
        >>> group = {"state_dtype": "packed16", "master_weight_bits": 24, "stochastic_rounding": None}
        >>> storage_of(torch.zeros(64, 64, dtype=torch.bfloat16), group)
        Storage(moments='packed16', master_bits=24, stochastic=True)
        >>> storage_of(torch.zeros(64), group)
        Storage(moments='wide', master_bits=None, stochastic=False)
    """
    asked, rounding = group["state_dtype"], group["stochastic_rounding"]
    moments = "wide"
    if asked == "param" and param.dtype in HALF:
        moments = str(param.dtype).removeprefix("torch.")
    elif asked not in ("param", "float32") and param.dtype in (torch.float32, *HALF) and is_large(tuple(param.shape)):
        moments = asked
    master_bits = group["master_weight_bits"] if param.dtype == torch.bfloat16 else None
    unbiased = rounding is None or rounding
    if rounding is None and group.get("differentiable"):
        unbiased = False  # autograd has no use for it
    return Storage(moments, master_bits, unbiased and param.dtype in HALF and master_bits != 32)


def check_storage(group: dict[str, Any]) -> None:
    """Raise ValueError on storage that does not exist or that cannot be had together."""
    state_dtype, master_bits = group["state_dtype"], group["master_weight_bits"]
    if state_dtype not in STATE_DTYPES:
        raise ValueError(f"state_dtype={state_dtype!r} must be one of {', '.join(map(repr, STATE_DTYPES))}")
    if isinstance(master_bits, bool) or master_bits not in (None, 24, 32):
        raise ValueError(f"master_weight_bits={master_bits!r} must be None, 24 or 32 (as exact as float32)")
    if group["stochastic_rounding"] not in (None, True, False):
        raise ValueError(
            f"stochastic_rounding={group['stochastic_rounding']!r} must be True, False, or None: on for weights "
            "of 16 bits and for masters of 24"
        )
    if isinstance(group["seed"], bool) or not isinstance(group["seed"], Integral):
        raise ValueError(f"seed={group['seed']!r} must be an integer")
    if group["amsgrad"] and state_dtype not in ("float32", "param"):
        raise ValueError(
            f"amsgrad=True (set, or from a checkpoint) with state_dtype={state_dtype!r}: a running maximum climbs on "
            "the noise of rounding (by 7 to 60 % where measured). Use state_dtype='float32', or no amsgrad"
        )
    if group["differentiable"] and (
        state_dtype not in ("float32", "param") or master_bits or group["stochastic_rounding"]
    ):
        raise ValueError(
            "differentiable=True records the step, and rounding to fewer bits has no gradient: leave state_dtype, "
            "master_weight_bits and stochastic_rounding as they are"
        )


def check_parameters(params: list[Any], group: dict[str, Any]) -> None:
    """Raise ValueError on a parameter that cannot be stored as its group asks."""
    for i, entry in enumerate(params):
        name, param = entry if isinstance(entry, tuple) else (f"parameter {i}", entry)
        if not isinstance(param, Tensor):
            continue
        storage = storage_of(param, group)
        if type(param) not in (Tensor, torch.nn.Parameter) and (storage.moments != "wide" or storage.master_bits):
            raise ValueError(
                f"{name} is a {type(param).__name__}: moments in fewer bits and master weights are for plain tensors. "
                "Use state_dtype='float32' and master_weight_bits=None"
            )
        if group["master_weight_bits"] and param.dtype == torch.float16:
            raise ValueError(
                f"master_weight_bits={group['master_weight_bits']} and {name} is float16, whose exponent is shorter "
                "than float32's: low bits cannot make it longer. Use bfloat16 parameters"
            )
        if group["amsgrad"] and storage.moments != "wide":
            raise ValueError(
                f"amsgrad=True and {name} would have {storage.moments} moments, on whose noise a "
                "running maximum climbs. Use state_dtype='float32', or no amsgrad"
            )
