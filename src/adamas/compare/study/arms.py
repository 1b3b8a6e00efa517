"""The arms of a study: candidate optimizers, each with the way in which its weight decay acts."""

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
    """A candidate optimizer with its decay mode.

    Attributes:
        name: The key of the arm in the JSON and in the trials.
        title: The name of the arm in sentences.
        optimizer: The class of a torch optimizer, as "module:Class".
        decay: "none"; "l2", an L2 term in a gradient that is then divided by its size; "lr", in proportion to weight
            and lr, as in AdamW; or "independent", the same for a class that takes the paper's number.
        options: Further arguments of the class.
        schedule: The shape of a `WeightDecaySchedule`; empty where the decay is constant.
    """

    name: str
    title: str
    optimizer: str
    decay: DecayMode
    options: tuple[tuple[str, Any], ...] = ()
    schedule: str = ""

    @property
    def built_in(self) -> bool:
        """Whether the arm is one of `ARMS`, which share a pilot."""
        return self.name in ARMS

    @property
    def pilot(self) -> str:
        """The name of the arm that trains the pilot: the built-in arms share that of Adam without decay."""
        return "none" if self.built_in else self.name

    @property
    def decoupled(self) -> bool:
        """Whether the decay is in proportion to the weight, as in AdamW, in either convention."""
        return self.decay in ("lr", "independent")

    @property
    def decay_power(self) -> int:
        """The power of the scheduled learning rate that a step's decay is proportional to."""
        return 0 if self.schedule else 2 if ("decay", "corrected") in self.options else 1

    def build(self, params: Iterable[Any], lr: float, weight_decay: float) -> Optimizer:
        """Return the optimizer; `weight_decay` is torch's, even if the class takes the paper's."""
        optimizer = _load(self.optimizer)(params, **self.arguments(lr, weight_decay))
        if self.schedule and weight_decay > 0:
            from adamas.torch import WeightDecaySchedule

            schedule = WeightDecaySchedule(optimizer, self.schedule)
            optimizer.register_step_pre_hook(lambda *_: schedule.step())
        return optimizer

    def arguments(self, lr: float, weight_decay: float) -> dict[str, Any]:
        """Return the arguments of the class, also a weight decay of 0, because the default of AdamW is not 0."""
        decay = {} if self.decay == "none" else {"weight_decay": weight_decay}
        if self.decay == "independent":
            decay["weight_decay"] = to_independent(weight_decay, lr)
        return {"lr": lr, **decay, **dict(self.options)}

    def code(self, lr: float, weight_decay: float, groups: bool = False) -> str:
        """Return a line of code that makes this optimizer, with its weight decay in the other convention as a comment.

        Args:
            lr: The learning rate.
            weight_decay: The weight decay in torch's convention.
            groups: Whether the job has parameter groups of its own, which the optimizer then takes.
        """
        module, _, kind = self.optimizer.partition(":")
        numbers = {
            key: f"{value:.3g}" if isinstance(value, float) else repr(value)
            for key, value in self.arguments(lr, weight_decay).items()
        }
        arguments = ", ".join(f"{key}={value}" for key, value in numbers.items())
        params = "parameter_groups" if groups else "model.parameters()"
        line = f"from {module} import {kind}; optimizer = {kind}({params}, {arguments})"
        if self.schedule:
            line = line.replace(kind, f"{kind}, WeightDecaySchedule", 1)
            line += f"; schedule = WeightDecaySchedule(optimizer, {self.schedule!r})"
        if self.decay == "none":
            return line
        where = ", in each group that decays" if groups else ""  # a group's own number would overrule the argument
        if self.decay == "independent":
            return f"{line}  # torch's weight_decay: {weight_decay:.3g}{where}"
        step = ", and call schedule.step() after each lr_scheduler.step()" if self.schedule else ""
        return f"{line}  # lr * weight_decay: {to_independent(weight_decay, lr):.3g}{where}{step}"

    def to_json(self) -> dict[str, Any]:
        """Return the arm as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Arm:
        """Read what `to_json` returned, after a trip through JSON."""
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
        Arm("adamw_corrected", "AdamW with corrected decay", "adamas.torch:AdamW", "lr", (("decay", "corrected"),)),
        Arm("adamw_cautious", "AdamW with cautious decay", "adamas.torch:AdamW", "lr", (("cautious_decay", True),)),
        Arm("adamw_scheduled", "AdamW with constant lr x decay", "adamas.torch:AdamW", "lr", schedule="inverse_lr"),
    )
}
DEFAULT = ("none", "adam_l2", "adamw")
JUDGED = ("adam_l2", "adamw")  # the verdict is about these two
_STEPS = 20  # steps after which the decay of an optimizer is measured


def choose(names: str | Iterable[str]) -> dict[str, Arm]:
    """Return arms by name, read from a list or from names with commas between them.

    A torch optimizer is named as `module:Class` or `module:Class(option=value)`.

    Raises:
        ValueError: a name is unknown or not an optimizer, or one of the two arms that the verdict is about is missing.

    Example:
        >>> list(choose("adam_l2,adamw,torch.optim:SGD(momentum=0.9, nesterov=True)"))
        ['adam_l2', 'adamw', 'torch.optim:SGD(momentum=0.9, nesterov=True)']
    """
    text = names if isinstance(names, str) else ",".join(names)
    chosen = {arm.name: arm for arm in map(find, _split(text))}
    if missing := [name for name in JUDGED if name not in chosen]:
        raise ValueError(
            f"arms={text!r} must contain {' and '.join(JUDGED)}, which the verdict is about; add {', '.join(missing)}"
        )
    return chosen


def _split(text: str) -> list[str]:
    """Return the parts of a text between its commas, except for commas inside brackets."""
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
    options = _literal_options(name) if bracket else ()
    return Arm(name, name.replace(":", ".", 1), where, _measured_decay(name, where, dict(options)), options)


def _literal_options(name: str) -> tuple[tuple[str, Any], ...]:
    """Return the arguments in the brackets of an arm's name; their values are literals, never expressions."""
    try:
        call = ast.parse(name.partition(":")[2], mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return tuple((str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in call.keywords)
    except (SyntaxError, ValueError):
        raise ValueError(
            f"arm {name!r}: the brackets must contain named arguments with plain values, as in "
            "torch.optim:SGD(momentum=0.9)"
        ) from None


def _load(where: str) -> Any:
    """Return the class that "module:Class" names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _measured_decay(name: str, where: str, options: dict[str, Any]) -> DecayMode:
    """Return how weight decay acts in a class, from late steps of a weight of 1 without a gradient, at two decays.

    A step that doubles with the decay is in proportion to it, as in AdamW, and as in SGD, which does not divide the
    gradient by its size. A step that stays the same was divided by its own size: L2 in an adaptive method. The step is
    a late one because some optimizers start differently: the first five steps of RAdam divide by nothing.
    """
    import torch

    try:
        kind: Any = _load(where)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"arm {name!r} cannot be imported: {error}; its module must be installed, or in a folder of PYTHONPATH"
        ) from None
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise ValueError(f"arm {name!r} must be a class derived from torch.optim.Optimizer")
    takes_decay = "weight_decay" in inspect.signature(kind).parameters

    def last_step(**given: float) -> float:
        weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimizer = _load(where)([weight], lr=0.01, **given, **options)
        before = 1.0
        for _ in range(_STEPS):
            before = weight.mean().item()
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
        return before - weight.mean().item()

    try:
        if not takes_decay:  # under that name; the class may pass **kwargs on
            with contextlib.suppress(TypeError):
                takes_decay = last_step(weight_decay=0.2) != last_step()
        weak, strong = (last_step(weight_decay=decay) for decay in (0.1, 0.2)) if takes_decay else (last_step(), 0.0)
    except Exception as error:
        raise ValueError(
            f"arm {name!r} cannot be built as {where.partition(':')[2]}(params, lr=..., weight_decay=...) and stepped "
            f"without a closure: {type(error).__name__}: {error}"
        ) from error
    if not takes_decay:
        return "none"
    return "l2" if strong < 1.5 * weak else "lr"
