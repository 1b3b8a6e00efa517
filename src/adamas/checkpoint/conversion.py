"""Convert a checkpoint to the names and shapes of another framework, or say why that cannot be done."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from adamas.checkpoint.contents import (
    AVERAGE,
    LOW_BITS,
    SHAPED,
    WEIGHT,
    Checkpoint,
    CheckpointError,
    Entry,
    Framework,
    Group,
    listed,
    packed_in,
)
from adamas.checkpoint.encoding import decoded
from adamas.checkpoint.rules import SAME, Rule, Rules, Transform

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
    suspects = _after_flatten(checkpoint, rules)
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
            new = _moved(entry, transform, decode=to == "keras")
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
    """Return an entry with the axes of its tensors changed.

    Packed moments stay packed where nothing changes, and low bits of a master weight stay beside its upper ones: the
    optimizer that loads them may keep both.
    """
    if transform.text == SAME:
        return decoded(entry) if decode else entry
    whole = decoded(entry)
    arrays = {key: transform.apply(array) for key, array in whole.arrays.items() if key in SHAPED}
    low = entry.arrays.get(LOW_BITS)
    if low is not None and not decode:
        arrays[LOW_BITS] = transform.apply(low if low.dtype == np.int8 else low.view(np.int16)[..., 0])
        if low.dtype != np.int8:
            arrays[LOW_BITS] = np.ascontiguousarray(arrays[LOW_BITS])[..., None].view(low.dtype)
        if WEIGHT in arrays:
            arrays[WEIGHT] = transform.apply(entry.arrays[WEIGHT])
    return Entry(entry.step, arrays["exp_avg"].shape, arrays)


def _after_flatten(checkpoint: Checkpoint, rules: Rules) -> dict[str, str]:
    """Return the names of matrices that probably take a flattened feature map, each with the reason for refusal.

    This is the first matrix after a convolution whose rule moves its channels, where its number of inputs is a multiple
    of the convolution's outputs; an embedding keeps its axes, and does not count. Trees of JAX are sorted by name, and
    there any matrix may be the one.
    """
    found: dict[str, str] = {}
    channels = {name: _channels(entry, rules.find(name)) for name, entry in checkpoint.entries.items()}
    everywhere = [each for each in channels.values() if each] if checkpoint.layout == "jax" else []
    before = everywhere
    for name, entry in checkpoint.entries.items():
        each = channels[name]
        if each is not None:
            before = everywhere or [each]
        elif len(entry.shape) == 2 and ((rule := rules.find(name)) is None or rule[0].transform.text != SAME):
            reasons = (_flattened(entry.shape, *outputs) for outputs in before)
            found |= {name: reason} if (reason := next(filter(None, reasons), None)) else {}
            before = everywhere
    return found


def _channels(entry: Entry, found: tuple[Rule, str] | None) -> tuple[int, bool] | None:
    """Return the number of outputs of a convolution, and whether its rule moves channels from before the spatial axes.

    A convolution has one to three spatial axes. Its rule has them on one side after two axes of channels, on the other
    before. None is for any other weight, such as a projection of attention.
    """
    parts = [] if found is None else found[0].transform.parts
    if len(parts) != 2 or len(entry.shape) not in (3, 4, 5) or len(parts[0]) != len(entry.shape):
        return None
    if len(parts[1]) != len(parts[0]):
        return None
    first = parts[0][2:] == parts[1][:-2]
    if parts[1][2:] == parts[0][:-2]:
        first = first and not set(parts[0][:-2]) <= set("DHW")  # "HWCI->CIHW" could be read both ways
    elif not first:
        return None
    places = range(2) if first else range(len(parts[0]) - 2, len(parts[0]))
    named = [place for place in places if parts[0][place] == "O"]
    outer = parts[0] if first else parts[1]  # the side with channels first
    inner = parts[1] if first else parts[0]
    depthwise = inner[-2:] != [outer[1], outer[0]]
    if named or depthwise:
        outputs = entry.shape[named[0]] if named else entry.shape[places[0]] * entry.shape[places[1]]
    else:
        outputs = entry.shape[places[0] if first else places[1]]
    return outputs, first


def _flattened(shape: tuple[int, ...], outputs: int, channels_first: bool) -> str | None:
    """Return why a matrix after a convolution is not merely transposed, or None where it may be."""
    flattened, plain = ("O(CHW)->(HWC)O", "O(I)->(I)O") if channels_first else ("(HWC)O->O(CHW)", "(I)O->O(I)")
    inputs = shape[1 if channels_first else 0]
    if outputs < 2 or inputs % outputs or inputs == outputs or not inputs:
        return None
    return (
        f"its {inputs} inputs look like a flattened feature map of the {outputs} channels before it, in the order CHW "
        f'in torch and HWC elsewhere. The rule needs the sizes, as in "{flattened}", {{"C": {outputs}, "H": ..., '
        f'"W": ...}}. If the inputs are no feature map: "{plain}"'
    )


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
    moved_rows = {row.name for row in report.rows if row.transform != SAME or to == "keras"}
    packed = sum(packed_in(checkpoint.entries[name].arrays) is not None for name in moved_rows)
    if packed:
        report.notes.append(f"packed moments of {packed} parameters are decoded to float32")
    if any(AVERAGE in entry.arrays for entry in checkpoint.entries.values()):
        report.notes.append("ema: the file keeps the average of the weights; Adamas and Keras with use_ema continue it")


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
