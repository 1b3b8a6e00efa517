"""The sample of a checkpoint: the last step before it was saved, as its moments and weights tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamas.checkpoint.contents import CheckpointError
from adamas.decay import USES_BASE_LR
from adamas.scalars import Hyper, number
from adamas.state.conform import decoded_moments, steps_taken
from adamas.understand.xray.figures import Reading, read
from adamas.understand.xray.files import Saved, SavedParameter, is_adam
from adamas.understand.xray.sample import Array, Layer, Sample, stride_for


@dataclass(frozen=True)
class Overrides:
    """What the user knows better than the checkpoint; None keeps what it says.

    Attributes:
        lr: The learning rate.
        weight_decay: The weight decay in torch's convention.
        optimizer: "adam" or "adamw", where the checkpoint does not say which.
    """

    lr: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None


def reading_of(saved: Saved, overrides: Overrides) -> Reading:
    """Return the figures of a checkpoint.

    The last step is computed again from moments and weights: exactly, except for its learning rate, which is taken to
    be that of the group. The decay part of an L2 step is approximate.

    Raises:
        CheckpointError: a state is no Adam's, or the rule of decay or the learning rate is not known.
    """
    found = [_layer(parameter, saved, overrides) for parameter in saved.parameters]
    layers = [layer for layer, _ in found]
    elements = [each for _, each in found]
    counts = np.array([len(each["root"]) for each in elements])
    moments = {key: np.concatenate([each[key] for each in elements]) for key in ("exp_avg", "root")}
    if any("weight" not in each for each in elements):
        if any(layer.hyper.cautious_decay for layer in layers):
            saved.notes.append("cautious decay without weights: rates are those of weights that decay at this step")
        return read(Sample(layers, counts, moments["exp_avg"], moments["root"]))
    after = np.concatenate([each["weight"] for each in elements])
    sample = Sample(layers, counts, moments["exp_avg"], moments["root"], after, after)
    gradient, decay = sample.parts()
    unchanged = None
    if not any(_rounding_is_unknown(parameter) for parameter in saved.parameters):
        unchanged = _unchanged(after, gradient + decay, counts, saved.parameters)
    before = _before(sample, after, gradient, decay)
    return read(Sample(layers, counts, moments["exp_avg"], moments["root"], before, after, None, unchanged))


def _layer(parameter: SavedParameter, saved: Saved, overrides: Overrides) -> tuple[Layer, dict[str, Array]]:
    """Return a layer and its sampled elements."""
    name, state = parameter.name, parameter.state
    if not is_adam(state) or parameter.shape is None:
        raise CheckpointError(
            f"the state of {name} has the keys {', '.join(map(str, state))}, without the moments of an Adam in a shape "
            "that is known: only Adam and AdamW of torch and adamas are read. Save the weights beside packed12 states"
        )
    hyper, base_lr = _hyper(parameter, saved, overrides)
    home = torch.empty(parameter.shape) if parameter.weight is None else parameter.weight
    first, second = decoded_moments(dict(state), home)
    second = state["max_exp_avg_sq"] if hyper.amsgrad != "off" else second
    if tuple(first.shape) != parameter.shape or tuple(second.shape) != parameter.shape:
        raise CheckpointError(f"the moments of {name} have different shapes: the checkpoint is damaged")
    stride = stride_for(first.numel())
    elements = {"exp_avg": _array(first, stride), "root": np.sqrt(_array(second, stride))}
    rms = largest = None
    if parameter.weight is not None:
        weight = _master(parameter.weight, state)
        elements["weight"] = _array(weight, stride)
        rms = float(torch.linalg.vector_norm(weight, dtype=torch.float64)) / weight.numel() ** 0.5
        largest = float(torch.linalg.vector_norm(weight, float("inf")))
    step = steps_taken(dict(state))
    if step < 1:
        raise CheckpointError(f"{name} has taken {step} steps: there is nothing to look at before the first")
    return Layer(name, first.numel(), hyper, step, base_lr, False, rms, largest), elements


def _hyper(parameter: SavedParameter, saved: Saved, overrides: Overrides) -> tuple[Hyper, float]:
    """Return the hyperparameters of a parameter, and the learning rate that its schedule starts from."""
    settings = parameter.settings
    base_lr = settings.get("initial_lr", settings.get("base_lr", settings.get("lr")))
    lr = settings.get("lr") if overrides.lr is None else overrides.lr
    if not number(lr) > 0 and number(base_lr) > 0:
        lr = base_lr
        note = (
            f"the schedule ended at lr=0: figures are for lr={lr:g}, the rate that it started from. --lr takes another"
        )
        if note not in saved.notes:
            saved.notes.append(note)
    if not number(lr) > 0:
        raise CheckpointError(f"the checkpoint has lr={lr}, and rates of decay need one > 0: give --lr")
    weight_decay = settings.get("weight_decay") if overrides.weight_decay is None else overrides.weight_decay
    if weight_decay is None:
        raise CheckpointError("the checkpoint does not tell its weight decay: give --weight-decay")
    decay: Any = settings.get("decay") if settings.get("decay") != "none" else None
    asked = {"adam": "l2", "adamw": "lr"}.get(overrides.optimizer or "")
    if decay is not None and asked is not None and (decay == "l2") != (asked == "l2"):
        raise CheckpointError(
            f"optimizer={overrides.optimizer} is not what the checkpoint says: its weight decay is {decay!r}. Leave "
            "--optimizer out"
        )
    decay = decay or asked or ("none" if weight_decay == 0 else None)
    if decay is None:
        raise CheckpointError(
            f"the checkpoint does not say whether weight_decay={weight_decay:g} is Adam's L2 or AdamW's decoupled "
            "decay: give --optimizer adam or --optimizer adamw"
        )
    beta1, beta2 = settings.get("betas", (0.9, 0.999))
    hyper = Hyper(
        lr=lr, beta1=beta1, beta2=beta2, eps=settings.get("eps", 1e-8), weight_decay=weight_decay, decay=decay,
        base_lr=settings.get("base_lr", lr) if decay in USES_BASE_LR else 0.0,
        amsgrad=settings.get("amsgrad") or "off", eps_mode=saved.eps_mode,  # pyright: ignore[reportArgumentType]
        cautious_decay=bool(settings.get("cautious_decay")) and decay not in ("l2", "none"),
    )  # fmt: skip
    return hyper, number(base_lr) if number(base_lr) > 0 else hyper.lr


def _before(sample: Sample, after: Array, gradient: Array, decay: Array) -> Array:
    """Return the weights before the last step, from those after it and from the parts of one more such step."""
    coupled = sample.spread([float(layer.hyper.decay == "l2") for layer in sample.layers]) > 0
    share = np.divide(decay, after, out=np.zeros(after.shape), where=after != 0)
    return np.where(coupled, after + gradient + decay, (after + gradient) / (1 - np.where(coupled, 0.0, share)))


def _unchanged(after: Array, change: Array, counts: Array, parameters: list[SavedParameter]) -> Array:
    """Return whether rounding to nearest would keep a weight as it is if the last step came once more."""
    found: list[Array] = []
    ends = np.cumsum(counts).tolist()
    for parameter, count, end in zip(parameters, counts.tolist(), ends, strict=True):
        assert parameter.weight is not None
        old = torch.from_numpy(after[end - count : end])
        new = old - torch.from_numpy(change[end - count : end])
        dtype = torch.float32 if "param_low" in parameter.state else parameter.weight.dtype
        found.append((new.to(dtype) == old.to(dtype)).numpy())
    return np.concatenate(found)


def _rounding_is_unknown(parameter: SavedParameter) -> bool:
    """Return whether a weight is rounded stochastically, or has another dtype in the file than in training."""
    small = parameter.weight is not None and parameter.weight.element_size() < 4
    return not parameter.same_dtype or (small and parameter.settings.get("stochastic_rounding", False) is not False)


def _master(weight: Tensor, state: Any) -> Tensor:
    """Return a weight in float32 or wider, with the low bits of a master weight."""
    from adamas.formats import stored
    from adamas.state.conform import stored_as

    return stored.weight(stored_as(dict(state), weight), dict(state), weight)


def _array(tensor: Tensor, stride: int) -> Array:
    return tensor.detach().reshape(-1)[::stride].double().numpy()
