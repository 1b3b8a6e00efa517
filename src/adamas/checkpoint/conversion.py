"""Convert a checkpoint to the names and shapes of another framework, or say why that cannot be done."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from adamas.checkpoint.contents import (
    AVERAGE,
    SHAPED,
    Checkpoint,
    CheckpointError,
    Entry,
    Framework,
    Group,
    listed,
    packed_in,
)
from adamas.checkpoint.encoding import decoded
from adamas.checkpoint.rules import SAME, Rules, Transform

GLOBAL_STEP: tuple[Framework, ...] = ("jax", "keras")
EPS_MODES = {"torch": "alg1", "jax": "alg1", "keras": "hat", "numpy": "alg1"}


class Row(NamedTuple):
    """What becomes of one parameter."""

    name: str
    shape: tuple[int, ...]
    target: str  # the new name; empty where the parameter is left out
    transform: str
    new_shape: tuple[int, ...]
    refusal: str | None = None  # why it cannot be converted


@dataclass
class Report:
    """What a conversion does to each parameter, and what a reader must know about the rest."""

    rows: list[Row] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # reasons that concern the whole checkpoint
    notes: list[str] = field(default_factory=list)

    def all_refusals(self) -> list[str]:
        """Return every reason why the conversion is refused."""
        return [*self.refusals, *(f"{row.name}: {row.refusal}" for row in self.rows if row.refusal)]

    def raise_refusals(self) -> None:
        """Raise CheckpointError where anything is refused."""
        found = self.all_refusals()
        if found:
            more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
            raise CheckpointError("the checkpoint cannot be converted:\n  " + "\n  ".join(found[:10]) + more)


def converted(checkpoint: Checkpoint, to: Framework, rules: Rules, strict: bool) -> tuple[Checkpoint, Report]:
    """Return the checkpoint for another framework, without the parameters that are refused, and the report."""
    new, report = moved(checkpoint, to, rules)
    _check_conventions(checkpoint, to, report)
    return _with_one_step(new, to, strict, report), report


def moved(checkpoint: Checkpoint, to: Framework, rules: Rules) -> tuple[Checkpoint, Report]:
    """Return the checkpoint with new names and shapes, without the parameters that are refused, and the report."""
    report, entries, names = Report(), dict[str, Entry](), dict[str, str]()
    suspects = _after_flatten(checkpoint) if checkpoint.layout != to and "torch" in (checkpoint.layout, to) else {}
    for name, entry in checkpoint.entries.items():
        found = rules.find(name)
        target, transform = (name, Transform()) if found is None else (found[1], found[0].transform)
        row = Row(name, entry.shape, target, transform.text, ())
        try:
            if found is None and to != checkpoint.layout and len(entry.shape) > 1:
                raise CheckpointError(
                    f"a {checkpoint.layout} tensor of shape {entry.shape} may have its axes in another order in {to}, "
                    "and no rule tells: add one with 'same', 'transpose' (linear layers) or axes ('OIHW->HWIO')"
                )
            if target in entries:
                raise CheckpointError(f"{names[target]} becomes {target!r} too: correct the rules")
            if target and name in suspects and transform.text != SAME and not transform.joins:
                raise CheckpointError(suspects[name])
            new = _moved(entry, transform, decode=to != checkpoint.layout)
        except CheckpointError as error:
            report.rows.append(row._replace(refusal=str(error)))
            continue
        report.rows.append(row._replace(new_shape=new.shape))
        if target:
            entries[target], names[target] = new, name
    back = {name: target for target, name in names.items()}
    groups = [Group([back[name] for name in group.names if name in back], group.hyper) for group in checkpoint.groups]
    used = {id(found[0]) for name in checkpoint.entries if (found := rules.find(name))}
    report.notes += [f"the rule {rule.pattern!r} is for no parameter" for rule in rules.rules if id(rule) not in used]
    return replace(checkpoint, layout=to, entries=entries, groups=[each for each in groups if each.names]), report


def _moved(entry: Entry, transform: Transform, decode: bool) -> Entry:
    """Return an entry with the axes of its tensors changed; packed moments stay packed where nothing changes."""
    if not decode and transform.text == SAME:
        return entry
    entry = decoded(entry)
    arrays = {key: transform.apply(array) for key, array in entry.arrays.items() if key in SHAPED}
    return Entry(entry.step, arrays["exp_avg"].shape, arrays)


def _after_flatten(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the names of matrices that probably take a flattened feature map, each with the reason for refusal.

    This is the first matrix after a convolution, where its number of inputs is a multiple of the convolution's outputs.
    """
    found: dict[str, str] = {}
    outputs, first_axis_is_output = None, checkpoint.layout == "torch"
    flattened, plain = ("O(CHW)->(HWC)O", "O(I)->(I)O") if first_axis_is_output else ("(HWC)O->O(CHW)", "(I)O->O(I)")
    for name, entry in checkpoint.entries.items():
        if len(entry.shape) > 2:
            outputs = entry.shape[0 if first_axis_is_output else -1]
        elif len(entry.shape) == 2 and outputs is not None:
            inputs = entry.shape[1 if first_axis_is_output else 0]
            if outputs > 1 and inputs % outputs == 0 and inputs > outputs:
                found[name] = (
                    f"its {inputs} inputs look like a flattened feature map of the {outputs} channels before it, "
                    "in the order CHW in torch and HWC elsewhere. The rule needs the sizes, as in "
                    f'"{flattened}", {{"C": {outputs}, "H": ..., "W": ...}}. If the inputs are no feature map: '
                    f'"{plain}"'
                )
            outputs = None
    return found


def _check_conventions(checkpoint: Checkpoint, to: Framework, report: Report) -> None:
    """Add to the report what concerns the whole checkpoint: maximum, epsilon, decay, formats."""
    decays = {group.hyper.get("decay") for group in checkpoint.groups}
    if checkpoint.amsgrad == "corrected" and to != "jax":
        report.refusals.append(
            "amsgrad: the checkpoint has the maximum of bias-corrected second moments (optax), which does not give the "
            f"maximum of raw ones ({to}). Start without amsgrad, or stay with optax"
        )
    if to == checkpoint.layout:
        return
    if checkpoint.amsgrad == "raw" and to == "jax":
        report.notes.append("amsgrad: the maximum is of raw moments; adamas.jax continues from it, and optax cannot")
    if checkpoint.eps_mode != EPS_MODES[to]:
        report.notes.append(
            "eps: torch, optax and Adamas add it to the bias-corrected root, keras.optimizers to the raw one. The "
            "moments are the same; updates of very small gradients differ in the first 1 / (1 - beta2) steps"
        )
    if "l2" in decays and to != "torch":
        report.notes.append(
            "decay: L2 in the gradient is an option of torch's and Adamas' Adam only; else add it to the loss"
        )
    if decays & {"independent", "corrected"}:
        report.notes.append("decay: 'independent' and 'corrected' are options of Adamas only")
    if any("lr" not in group.hyper for group in checkpoint.groups):
        report.notes.append("lr: it is not recorded (a schedule, or a closure); give the new optimizer its own")
    packed = sum(packed_in(entry.arrays) is not None for entry in checkpoint.entries.values())
    if packed:
        report.notes.append(f"packed moments of {packed} parameters are decoded to float32")
    if any(AVERAGE in entry.arrays for entry in checkpoint.entries.values()):
        report.notes.append("ema: the average of the weights is kept in the file; only Adamas continues it")


def _with_one_step(checkpoint: Checkpoint, to: Framework, strict: bool, report: Report) -> Checkpoint:
    """Return the checkpoint with one step for all parameters where the framework counts only once."""
    steps = sorted({entry.step for entry in checkpoint.entries.values()})
    if to not in GLOBAL_STEP or len(steps) < 2:
        return checkpoint
    example = next(name for name, entry in checkpoint.entries.items() if entry.step == steps[0])
    reason = (
        f"parameters have taken different numbers of steps ({listed(map(str, steps))}; {example!r} {steps[0]}), and "
        f"{to} counts once for all"
    )
    if strict:
        report.refusals.append(f"{reason}: strict=False (--no-strict) takes the largest")
        return checkpoint
    warnings.warn(f"{reason}: {steps[-1]} is used for all", stacklevel=4)
    report.notes.append(f"{reason}: {steps[-1]} is used for all")
    return replace(checkpoint, entries={n: entry._replace(step=steps[-1]) for n, entry in checkpoint.entries.items()})
