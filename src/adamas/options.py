"""The table of the optimizers' options: the default, allowed values and meaning of each, and when it is read.

The keys of parameter groups, validation, checkpoints, pickles of earlier versions and the documented arguments follow
from this table. A new option needs one entry here, one argument in the constructors, and the code that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeVar

from adamas.decay import USES_BASE_LR
from adamas.formats.names import FULL, STATE_DTYPES, Storage

DECOUPLED = ("lr", *USES_BASE_LR)  # the ways in which decoupled decay may follow the learning rate

# AdamW's default. Compared by identity, it differs from an explicit 0.01: `decay="independent"` refuses the default.
DEFAULT_WEIGHT_DECAY = float("1e-2")
NEEDS_WEIGHT_DECAY = (
    "decay='independent' needs weight_decay given: the default 0.01 would shrink weights by 1 % a step. "
    "adamas.decay.to_independent(weight_decay, lr) converts torch's"
)


class Option(NamedTuple):
    """One row of the table of options."""

    default: Any  # the default of the argument and of the group key
    meaning: str  # the effect, with units, for the documented arguments
    allowed: Callable[[Any], bool] | None = None  # whether a value is allowed; `Hyper` checks the ranges of numbers
    rule: str = ""  # the allowed values, in the words of an error
    # "step" for an option that every step reads; "plan" for one that decides how parameters are stepped, so that a
    # change needs a new plan; "optimizer" for one that concerns all groups and is no key of a group.
    read: Literal["step", "plan", "optimizer"] = "step"
    saved: bool = True  # whether a checkpoint brings the value; otherwise the value given at construction stays
    only: Literal["Adam", "AdamW"] | None = None  # the one class with this argument; None where both have it


Rule = tuple[Callable[[Any], bool], str]  # the fields `allowed` and `rule` of an option


def _choice(rule: str) -> Rule:
    return (lambda value: value is None or value is True or value is False), rule


def _one_of(values: tuple[Any, ...], rule: str = "", more: str = "") -> Rule:
    rule = rule or f"one of {', '.join(map(repr, values))}{more}"
    return (lambda value: not isinstance(value, bool) and value in values), rule


_FLAG: Rule = (lambda value: isinstance(value, int)), "True or False"
_CHOICE = _choice("None, True or False")

OPTIONS: dict[str, Option] = {
    "lr": Option(
        1e-3,
        "step size, >= 0, in the units of the parameters: the first step moves each weight by lr. Each step reads a "
        "1-element tensor again.",
    ),
    "betas": Option(
        (0.9, 0.999),
        "decay of the first and of the second moment, each in [0, 1): an average over about 1 / (1 - beta) steps.",
    ),
    "eps": Option(1e-8, "added to the root of the second moment, >= 0, in the units of the gradient."),
    "weight_decay": Option(
        0.0,
        "lambda, >= 0. Adam adds lambda * weight to the gradient. AdamW shrinks a weight by lr * lambda a step, or as "
        "`decay` says.",
    ),
    "amsgrad": Option(False, "divide by the running maximum of the second moment.", *_FLAG, read="plan"),
    "maximize": Option(False, "maximize the objective instead of minimizing it.", *_FLAG),
    "foreach": Option(None, "True demands torch's list operations, False excludes them.", *_CHOICE, "plan", False),
    "capturable": Option(False, "keep step counts and scalars on the device, for CUDA graphs.", *_FLAG, "plan", False),
    "differentiable": Option(False, "let autograd record the step.", *_FLAG, "plan", False),
    "fused": Option(
        None,
        "True demands a kernel that does the step in one pass (native, or triton on a GPU), False excludes it. With "
        "True and a GradScaler the step unscales the gradients, and leaves them unscaled in `.grad`, as torch does; "
        "otherwise the scaler unscales them.",
        *_CHOICE,
        "plan",
        False,
    ),
    "decoupled_weight_decay": Option(
        False, "decoupled decay, as AdamW has it, instead of L2.", *_FLAG, saved=False, only="Adam"
    ),
    "decay": Option(
        "lr",
        'how decoupled decay follows the learning rate. "lr": a weight shrinks by lr * weight_decay a step (torch, '
        'optax, Keras). "independent": by weight_decay * lr / base_lr (arXiv 1711.05101). "corrected": by weight_decay '
        "* lr**2 / base_lr, which keeps the norms of weights steady under a schedule (arXiv 2506.02285). base_lr is "
        "the lr at construction. See `adamas.decay` for conversions.",
        *_one_of(DECOUPLED, more="; for L2 in the gradient use Adam"),
        saved=False,
        only="AdamW",
    ),
    "cautious_decay": Option(
        False,
        "leave out the decay of a weight where the update has the opposite sign of the weight (arXiv 2510.12402). Only "
        "for decoupled decay.",
        *_FLAG,
        saved=False,
    ),
    "state_dtype": Option(
        "float32",
        'how both moments are stored. "float32": in float32, or as wide as a wider parameter. "bfloat16", "packed16", '
        '"packed12": rounded without bias, to 4, 2.05 and 1.55 bytes a parameter for both. "param": in the dtype of '
        'the parameter. Except for "param", tensors with fewer than 4,096 elements, with rows under 8 elements, or '
        "with one dimension that is under 65,536 elements or sharded keep float32.",
        *_one_of(STATE_DTYPES),
        "plan",
        False,
    ),
    "master_weight_bits": Option(
        None,
        "24 or 32: store the low bits that bfloat16 parameters lack, 1 or 2 bytes each. With 32, training gives the "
        "bits of float32 training. Not for float16 parameters.",
        *_one_of((None, 24, 32), "None, 24 or 32 (as exact as float32)"),
        "plan",
        False,
    ),
    "stochastic_rounding": Option(
        None,
        "round 16-bit weights and 24-bit master weights without bias instead of to nearest. None means True, and False "
        "with differentiable=True.",
        *_choice("True, False, or None: on for 16-bit weights and 24-bit master weights"),
        "plan",
        False,
    ),
    "max_norm": Option(
        None,
        "the limit, > 0, to which the step clips the global norm of all gradients, as `clip_grad_norm_` does; math.inf "
        "only measures the norm.",
        read="optimizer",
    ),
    "ema_decay": Option(
        None,
        "decay of an exponential moving average of the weights, in [0, 1): see `averaged`. None keeps no average.",
        saved=False,
    ),
    "skip_nonfinite": Option(
        False,
        "skip a step where a gradient holds an inf or a NaN: it changes nothing, and `skipped_steps` counts it.",
        *_FLAG,
        "optimizer",
    ),
    "seed": Option(
        0,
        "seed of the random bits for rounding. They depend on the seed, the step and the position of the element.",
        lambda value: isinstance(value, Integral) and value is not True and value is not False,
        "an integer",
    ),
    "kernel": Option(
        None,
        'the kernel to use: "native", "triton" or "eager". None chooses one for each parameter.',
        read="plan",
        saved=False,
    ),
}

# The keys of a parameter group, in the order of the table.
GROUP_KEYS = tuple(name for name, option in OPTIONS.items() if option.read != "optimizer")
OPTIMIZER_KEYS = tuple(name for name, option in OPTIONS.items() if option.read == "optimizer")
# The key of a group's lr at construction: no argument has this name, and no scheduler writes this key.
BASE_LR = "decay_base_lr"
STEP_KEYS = (*(name for name in GROUP_KEYS if OPTIONS[name].read == "step"), BASE_LR)
PLAN_KEYS = tuple(name for name in GROUP_KEYS if OPTIONS[name].read == "plan")
UNSAVED_KEYS = tuple(name for name in GROUP_KEYS if not OPTIONS[name].saved)
KNOWN_KEYS = ("params", "param_names", *GROUP_KEYS, BASE_LR)


def defaults() -> dict[str, Any]:
    """The default of every group key, for groups that lack some: pickles of earlier versions, or other libraries'."""
    return {name: OPTIONS[name].default for name in GROUP_KEYS}


def check_allowed(values: dict[str, Any]) -> None:
    """Raise ValueError on a value that its option does not allow. Ranges of numbers are not checked here.

    Example:
        >>> check_allowed({"amsgrad": "yes"})
        Traceback (most recent call last):
        ...
        ValueError: amsgrad='yes' must be True or False
    """
    for name, value in values.items():
        option = OPTIONS.get(name)
        if option is not None and option.allowed is not None and not option.allowed(value):
            raise ValueError(f"{name}={value!r} must be {option.rule}")


def check_together(group: dict[str, Any]) -> None:
    """Raise ValueError on storage options that contradict each other or the group's other options."""
    state_dtype, fewer_bits = group["state_dtype"], group["state_dtype"] not in FULL
    if group["amsgrad"] and fewer_bits:
        raise ValueError(
            f"amsgrad=True (set, or from a checkpoint) with state_dtype={state_dtype!r}: a running maximum climbs on "
            "the noise of rounding (by 7 to 60 % where measured). Use state_dtype='float32', or no amsgrad"
        )
    if group["differentiable"] and (fewer_bits or group["master_weight_bits"] or group["stochastic_rounding"]):
        raise ValueError(
            "differentiable=True records the step, and rounding to fewer bits has no gradient: leave state_dtype, "
            "master_weight_bits and stochastic_rounding at their defaults"
        )


def check_stored(name: str, dtype: str, storage: Storage, group: dict[str, Any]) -> None:
    """Raise ValueError on a parameter of this dtype and storage that its group's options cannot be combined with."""
    if group["master_weight_bits"] and dtype == "float16":
        raise ValueError(
            f"master_weight_bits={group['master_weight_bits']} and {name} is float16, and its exponent is "
            "shorter than float32's: low bits cannot make it longer. Use bfloat16 parameters"
        )
    if group["amsgrad"] and storage.moments != "wide":
        raise ValueError(
            f"amsgrad=True and {name} would have {storage.moments} moments: a running maximum climbs on the noise of "
            "their rounding. Use state_dtype='float32', or no amsgrad"
        )


def arguments(names: Iterable[str], indent: str = " " * 8) -> str:
    """The lines of the "Args:" section for the options with these names, in the order of the table."""
    from textwrap import fill

    lines = [f"{name}: {option.meaning}" for name, option in OPTIONS.items() if name in names]
    return "\n".join(
        fill(line, 120, initial_indent=indent, subsequent_indent=indent + " " * 4, break_long_words=False)
        for line in lines
    )


Class = TypeVar("Class", bound=type)


def documented(cls: Class) -> Class:
    """Replace "{arguments}" in the docstring of a class by what the table says of its constructor's options."""
    if cls.__doc__ is not None:  # python -OO
        names = signature(cls.__init__).parameters
        before, after = cls.__doc__.split("{arguments}")
        lines = before.rstrip(" ")  # what follows is the indentation, which Python 3.13 makes shorter
        cls.__doc__ = lines + arguments(names, before[len(lines) :]) + after
    return cls
