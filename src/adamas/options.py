"""Every option of the optimizers, once: its default, what it may be, what it means, and what may change it.

Constructors, keys of parameter groups, validation, checkpoints, pickles of earlier versions and the documented
arguments follow from this table. A new option is one entry here, one argument in the constructors, and its use.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeVar

from adamas.decay import USES_BASE_LR

STATE_DTYPES = ("float32", "bfloat16", "packed16", "packed12", "param")
DECOUPLED = ("lr", *USES_BASE_LR)  # how decoupled decay may follow the learning rate


class Option(NamedTuple):
    """One option of the optimizers.

    Args:
        default: the value where nobody gives one.
        meaning: what it does, with units, for the documented arguments.
        allowed: whether a value is allowed; None for numbers, whose ranges `adamas.scalars.Hyper` checks.
        rule: which values are allowed, as an error says it.
        read: "step" for what every step reads anew; "plan" for what decides how parameters are stepped, so that a
            change makes a new plan; "optimizer" for what concerns all groups together and is no key of a group.
        saved: whether a checkpoint brings its value; else the one given at construction stays.
        only: the class that has this argument, where it is not both.
    """

    default: Any
    meaning: str
    allowed: Callable[[Any], bool] | None = None
    rule: str = ""
    read: Literal["step", "plan", "optimizer"] = "step"
    saved: bool = True
    only: Literal["Adam", "AdamW"] | None = None


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | int)


def _is_choice(value: Any) -> bool:
    return value is None or value is True or value is False


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and value is not True and value is not False


def _one_of(values: tuple[Any, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: not isinstance(value, bool) and value in values), f"one of {', '.join(map(repr, values))}"


_FLAG = (_is_flag, "True or False")
_CHOICE = (_is_choice, "None, True or False")

OPTIONS: dict[str, Option] = {
    "lr": Option(
        1e-3,
        "step size, >= 0, in the units of the parameters: the first step moves each weight by lr. A 1-element tensor "
        "is read at each step.",
    ),
    "betas": Option(
        (0.9, 0.999),
        "decay of the first and of the second moment, each in [0, 1); the memory is about 1 / (1 - beta) steps.",
    ),
    "eps": Option(1e-8, "added to the root of the second moment, >= 0, in the units of the gradient."),
    "weight_decay": Option(
        0.0,
        "lambda, >= 0. Adam adds lambda * weight to the gradient. AdamW shrinks a weight by lr * lambda a step; "
        "`decay` has other rules.",
    ),
    "amsgrad": Option(False, "divide by the running maximum of the second moment.", *_FLAG, read="plan"),
    "maximize": Option(False, "ascend instead of descend.", *_FLAG),
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
        _one_of(DECOUPLED)[0],
        _one_of(DECOUPLED)[1] + "; for L2 in the gradient use Adam",
        saved=False,
        only="AdamW",
    ),
    "cautious_decay": Option(
        False,
        "decay a weight only where the update does not point against it, that is, where its sign is not the opposite "
        "of the weight's (arXiv 2510.12402). Only for decoupled decay.",
        *_FLAG,
        saved=False,
    ),
    "state_dtype": Option(
        "float32",
        'how both moments are stored: "float32", or as wide as a wider parameter; "bfloat16" (4 bytes a parameter for '
        'both), "packed16" (2.05), "packed12" (1.55), all rounded without bias; "param": as the parameter. Tensors '
        "with fewer than 4,096 elements, one dimension, or rows under 64 elements keep float32, except for "
        '"param".',
        *_one_of(STATE_DTYPES),
        "plan",
        False,
    ),
    "master_weight_bits": Option(
        None,
        "24 or 32: bfloat16 parameters get the low bits that they lack, 1 or 2 bytes each. With 32, training is that "
        "in float32, bit for bit. Not for float16 parameters.",
        _one_of((None, 24, 32))[0],
        "None, 24 or 32 (as exact as float32)",
        "plan",
        False,
    ),
    "stochastic_rounding": Option(
        None,
        "round weights of 16 bits, and masters of 24, without bias instead of to nearest. None: yes.",
        _is_choice,
        "True, False, or None: on for weights of 16 bits and for masters of 24",
        "plan",
        False,
    ),
    "max_norm": Option(
        None,
        "clip the global norm of all gradients to this, > 0, inside the step, as `clip_grad_norm_` before it would; "
        "math.inf only measures the norm.",
        read="optimizer",
    ),
    "ema_decay": Option(
        None,
        "keep an exponential moving average of the weights with this memory, in [0, 1): see `averaged`.",
        saved=False,
    ),
    "skip_nonfinite": Option(
        False,
        "a step whose gradients hold an inf or a NaN changes nothing and is counted in `skipped_steps`.",
        *_FLAG,
        "optimizer",
    ),
    "seed": Option(
        0,
        "seed of the random bits of rounding, which depend on nothing else but the step and the element's place.",
        _is_integer,
        "an integer",
    ),
    "kernel": Option(
        None,
        'None chooses the kernel; "native", "triton" or "eager" demands one.',
        read="plan",
        saved=False,
    ),
}

# The keys of a parameter group, in the order of the table.
GROUP_KEYS = tuple(name for name, option in OPTIONS.items() if option.read != "optimizer")
OPTIMIZER_KEYS = tuple(name for name, option in OPTIONS.items() if option.read == "optimizer")
# A group's lr at construction. It is no argument, and no scheduler writes it.
BASE_LR = "decay_base_lr"
STEP_KEYS = (*(name for name in GROUP_KEYS if OPTIONS[name].read == "step"), BASE_LR)
PLAN_KEYS = tuple(name for name in GROUP_KEYS if OPTIONS[name].read == "plan")
UNSAVED_KEYS = tuple(name for name in GROUP_KEYS if not OPTIONS[name].saved)
KNOWN_KEYS = ("params", "param_names", *GROUP_KEYS, BASE_LR)


def defaults() -> dict[str, Any]:
    """The default of every key of a group: what pickles of earlier versions, and other libraries' groups, may lack."""
    return {name: OPTIONS[name].default for name in GROUP_KEYS}


def check_allowed(values: dict[str, Any]) -> None:
    """Raise ValueError on a value that its option does not allow; ranges of numbers are not looked at.

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


def arguments(of: str, indent: str = " " * 8) -> str:
    """The "Args:" section that documents the options of "Adam" or "AdamW"."""
    from textwrap import fill

    lines = [
        'params: parameters, named parameters, or groups: dicts with "params" and any of the arguments below but '
        "max_norm and skip_nonfinite."
    ]
    lines += [f"{name}: {option.meaning}" for name, option in OPTIONS.items() if option.only in (None, of)]
    return "\n".join(
        fill(line, 120, initial_indent=indent, subsequent_indent=indent + " " * 4, break_long_words=False)
        for line in lines
    )


Class = TypeVar("Class", bound=type)


def documented(cls: Class) -> Class:
    """Put the documented arguments of a class in the place of "{arguments}" in its docstring."""
    if cls.__doc__ is not None:  # python -OO
        cls.__doc__ = cls.__doc__.replace("        {arguments}", arguments(cls.__name__))
    return cls
