"""The candidates: each arm is a record; what differs between them is the optimizer and how its decay acts."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adamas.decay import DecayMode, to_independent

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Arm:
    """One candidate.

    Attributes:
        name: key in the JSON and the trials.
        title: how sentences call it.
        optimizer: "module:Class" of a torch optimizer.
        decay: how weight decay acts: "none"; "l2", an L2 term in a gradient that is then divided by its size; or
            "lr", in proportion to weight and lr, as AdamW's.
        options: further arguments of the class.
        independent: whether the class is told its decay in the paper's convention.
    """

    name: str
    title: str
    optimizer: str
    decay: DecayMode
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def built_in(self) -> bool:
        """Whether the arm is one of Adamas' own, which share a pilot."""
        return self.name in ARMS

    @property
    def decoupled(self) -> bool:
        """Whether the decay is in proportion to the weight, as AdamW's is, in either convention."""
        return self.decay in ("lr", "independent")

    def build(self, params: Iterable[Any], lr: float, weight_decay: float) -> Optimizer:
        """Make the optimizer; `weight_decay` is torch's whatever the class is told."""
        return load(self.optimizer)(params, **self.arguments(lr, weight_decay))

    def arguments(self, lr: float, weight_decay: float) -> dict[str, Any]:
        """What the class is called with. AdamW is told a decay of 0 as well: its own default would decay."""
        told = {} if self.decay == "none" else {"weight_decay": weight_decay}
        if self.decay == "independent":
            told["weight_decay"] = to_independent(weight_decay, lr)
        return {"lr": lr, **told, **dict(self.options)}

    def code(self, lr: float, weight_decay: float, groups: bool = False) -> str:
        """Code that makes this optimizer, ready to paste, with its decay in the other convention as a comment.

        Args:
            lr: learning rate.
            weight_decay: torch's.
            groups: whether the job brings parameter groups, which it is to be made of.
        """
        module, _, kind = self.optimizer.partition(":")
        numbers = {
            key: f"{value:.3g}" if isinstance(value, float) else repr(value)
            for key, value in self.arguments(lr, weight_decay).items()
        }
        told = ", ".join(f"{key}={value}" for key, value in numbers.items())
        params = "parameter_groups" if groups else "model.parameters()"
        line = f"from {module} import {kind}; optimizer = {kind}({params}, {told})"
        if self.decay == "none":
            return line
        if self.decay == "independent":
            return f"{line}  # torch's weight_decay: {weight_decay:.3g}"
        return f"{line}  # lr * weight_decay: {to_independent(weight_decay, lr):.3g}"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Arm:
        """Inverse of `to_json`, after a trip through JSON."""
        options: Any = tuple((key, value) for key, value in data["options"])
        return cls(**(data | {"options": options}))


ARMS = {
    arm.name: arm
    for arm in (
        Arm("none", "Adam without decay", "adamas.torch:Adam", "none"),
        Arm("adam_l2", "Adam with L2", "adamas.torch:Adam", "l2"),
        Arm("adamw", "AdamW", "adamas.torch:AdamW", "lr"),
        Arm(
            "adamw_independent",
            "AdamW with independent decay",
            "adamas.torch:AdamW",
            "independent",
            (("decay", "independent"),),
        ),
    )
}
STEPS = 20  # after which an optimizer's decay is measured
DEFAULT = ("none", "adam_l2", "adamw")
JUDGED = ("adam_l2", "adamw")  # the verdict is about these two


def choose(names: str | Iterable[str]) -> dict[str, Arm]:
    """Read the candidates: names, in a list or with commas.

    A torch optimizer is named as `module:Class` or `module:Class(option=value)`.

    Raises:
        ValueError: an arm is unknown, or no optimizer; or one of the two that the verdict is about is missing.

    Example:
        >>> list(choose("adam_l2,adamw,torch.optim:SGD(momentum=0.9, nesterov=True)"))
        ['adam_l2', 'adamw', 'torch.optim:SGD(momentum=0.9, nesterov=True)']
    """
    text = names if isinstance(names, str) else ",".join(names)
    chosen = {arm.name: arm for arm in map(find, split(text))}
    if missing := [name for name in JUDGED if name not in chosen]:
        raise ValueError(
            f"arms={text!r} must contain {' and '.join(JUDGED)}, which the verdict is about; add {', '.join(missing)}"
        )
    return chosen


def split(text: str) -> list[str]:
    """Cut at the commas that no bracket encloses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def find(name: str) -> Arm:
    """Return the arm called `name`, or make one of a torch optimizer's class."""
    if name in ARMS:
        return ARMS[name]
    if ":" not in name:
        raise ValueError(
            f"arm {name!r} must be one of {', '.join(ARMS)}, or module:Class of a torch optimizer, "
            "as in torch.optim:RMSprop"
        )
    where, bracket, _ = name.partition("(")
    options = literal_options(name) if bracket else ()
    return Arm(name, name.replace(":", ".", 1), where, measured_decay(name, where, dict(options)), options)


def literal_options(name: str) -> tuple[tuple[str, Any], ...]:
    """The arguments in the brackets of an arm's name; numbers, strings, tuples and the like, never expressions."""
    try:
        call = ast.parse(name.partition(":")[2], mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return tuple((str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in call.keywords)
    except (SyntaxError, ValueError):
        raise ValueError(
            f"arm {name!r}: what is in brackets must be arguments with plain values, as in "
            "torch.optim:SGD(momentum=0.9)"
        ) from None


def load(where: str) -> Any:
    """Import "module:Class"."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def measured_decay(name: str, where: str, options: dict[str, Any]) -> DecayMode:
    """How weight decay acts in a class, by trying: a late step of a weight of 1 without a gradient, at two decays.

    Late, because some take other steps at first: RAdam divides by nothing until it knows what by.
    A pull that doubles with the decay is in proportion to it, as in AdamW, and in SGD, which divides by nothing. One
    that does not change was divided by its own size: L2 in the gradient of an adaptive method.
    """
    import torch

    try:
        kind: Any = load(where)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"arm {name!r} cannot be imported: {error}; its module must be installed, or in a folder of PYTHONPATH"
        ) from None
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise ValueError(f"arm {name!r} must be a class derived from torch.optim.Optimizer")
    takes_decay = "weight_decay" in inspect.signature(kind).parameters

    def pull(**told: float) -> float:
        weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimizer = load(where)([weight], lr=0.01, **told, **options)
        before = 1.0
        for _ in range(STEPS):
            before = weight.mean().item()
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
        return before - weight.mean().item()

    try:
        if not takes_decay:  # by that name; **kwargs may hand it on
            with contextlib.suppress(TypeError):
                takes_decay = pull(weight_decay=0.2) != pull()
        weak, strong = (pull(weight_decay=0.1), pull(weight_decay=0.2)) if takes_decay else (pull(), pull())
    except Exception as error:
        raise ValueError(
            f"arm {name!r} cannot be built as {where.partition(':')[2]}(params, lr=..., weight_decay=...) and stepped "
            f"without a closure: {type(error).__name__}: {error}"
        ) from error
    if not takes_decay:
        return "none"
    return "l2" if strong < 1.5 * weak else "lr"
