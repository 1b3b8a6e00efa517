"""Read the optimizer's state and the weights of a checkpoint, from files and folders of torch and of its trainers.

Only tensors and plain values are ever unpickled. Other objects are refused, because to unpickle them runs code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from adamas.checkpoint import file
from adamas.checkpoint.contents import MAXIMUM, WEIGHT, CheckpointError
from adamas.checkpoint.encoding import decoded
from adamas.checkpoint.torch_state import MODELS, OPTIMIZERS, hyper, unpickled
from adamas.formats.names import PACKED, WIDE
from adamas.understand.xray.matching import Shape, matched, named

OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin", "optimizer.pth")
MODEL_FILES = (
    "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip


@dataclass
class SavedParameter:
    """One parameter of a checkpoint.

    Attributes:
        name: Its name, or its place where the name is not known.
        settings: The hyperparameters of its group, with the keys of `adamas.checkpoint.contents.HYPER`.
        state: The tensors of its state by key.
        weight: The weight; None where the checkpoint has none, or where it is not certain which one.
        shape: The shape, where it is known.
        same_dtype: Whether the weight has the dtype that it has in training.
    """

    name: str
    settings: dict[str, Any]
    state: Mapping[str, Any]
    weight: Tensor | None
    shape: Shape
    same_dtype: bool = True


@dataclass
class Saved:
    """What a checkpoint holds of an optimizer.

    Attributes:
        parameters: The parameters that have a state.
        eps_mode: Where eps is added: see `adamas.scalars.Hyper`.
        steps_per_epoch: The steps of an epoch, where a trainer recorded them.
        notes: What a reader of the figures must know.
    """

    parameters: list[SavedParameter]
    eps_mode: str = "alg1"
    steps_per_epoch: float | None = None
    notes: list[str] = field(default_factory=list)


def read_checkpoint(path: Path, names: list[str] | None = None) -> Saved:
    """Read a checkpoint.

    Args:
        path: a file of torch.save or adamas.checkpoint.save, or a folder of Hugging Face's Trainer or Lightning.
        names: the names of the model's parameters in the order of `model.parameters()`; None reads them from the file.

    Raises:
        CheckpointError: the file is of another kind or damaged, or holds objects that only code could make.
        OSError: there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the file or folder of a checkpoint")
    try:
        if path.is_dir():
            return _folder(path, names)
        if path.suffix == ".safetensors":
            return _ours(path)
        found = unpickled(path)
        return _from_torch(path, found, _weights_in(found), names, ordered=True)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} holds no state of an Adam that can be read ({error!r}): it is damaged"
        ) from error


def _folder(path: Path, names: list[str] | None) -> Saved:
    """Read the folder of a trainer."""
    optimizer = next((path / name for name in OPTIMIZER_FILES if (path / name).is_file()), None)
    if optimizer is not None:
        weights, ordered = _model(path)
        saved = _from_torch(optimizer, unpickled(optimizer), weights, names, ordered)
        saved.steps_per_epoch = _steps_per_epoch(path / "trainer_state.json")
        return saved
    found = [each for each in (*path.glob("*.ckpt"), *path.glob("checkpoints/*.ckpt"), *path.glob("*.pt"),
                               *path.glob("*.safetensors")) if each.is_file()]  # fmt: skip
    if len(found) == 1:
        return read_checkpoint(found[0], names)
    inside = [each.name for each in found] or sorted(each.name for each in path.glob("checkpoint-*") if each.is_dir())
    raise CheckpointError(
        f"{path} is a folder without {' or '.join(OPTIMIZER_FILES)}: "
        + (f"give one of {', '.join(inside[:5])} in it" if inside else "there is no state of an optimizer in it")
    )


def _model(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the weights in a trainer's folder, and whether they are in the order of the model's parameters."""
    first = next((path / name for name in MODEL_FILES if (path / name).is_file()), None)
    if first is None:
        return {}, False
    files = [first]
    if first.suffix == ".json":
        listed = json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()
        files = [path / Path(str(name)).name for name in dict.fromkeys(listed)]  # never outside of the folder
    weights: dict[str, Tensor] = {}
    for each in files:
        weights |= _tensors(each)
    return weights, len(files) == 1 and first.suffix == ".bin"


def _tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a model's file by name."""
    if path.suffix != ".safetensors":
        return {name: x for name, x in unpickled(path).items() if isinstance(x, Tensor)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file ({error}): use another copy") from error


def _steps_per_epoch(path: Path) -> float | None:
    """Return the steps of an epoch from the state of Hugging Face's Trainer."""
    if not path.is_file():
        return None
    state = json.loads(path.read_text(encoding="utf-8"))
    steps, epochs = state.get("global_step"), state.get("epoch")
    return steps / epochs if steps and epochs else None


def _weights_in(found: Any) -> dict[str, Tensor]:
    """Return the weights beside an optimizer's state in one file; of tied ones the first."""
    model = next((found[key] for key in MODELS if isinstance(found.get(key), Mapping)), {}) if _is_dict(found) else {}
    weights: dict[str, Tensor] = {}
    seen: set[tuple[int, Any]] = set()
    for name, x in model.items():
        place = (x.data_ptr(), tuple(x.shape)) if isinstance(x, Tensor) else None
        if isinstance(x, Tensor) and x.is_floating_point() and (place not in seen or not x.numel()):
            weights[str(name)] = x
            seen.add(place)  # pyright: ignore[reportArgumentType]
    return weights


def _is_dict(found: Any) -> bool:
    return isinstance(found, Mapping)


def _from_torch(path: Path, found: Any, weights: Mapping[str, Tensor], names: list[str] | None, ordered: bool) -> Saved:
    """Return the parameters of an optimizer's state dict, with names and weights as far as they are certain."""
    if _is_dict(found):
        found = next((found[key] for key in OPTIMIZERS if key in found), found)
    optimizers: list[Any] = found if isinstance(found, list) else [found]
    if not optimizers or not all(_is_dict(each) and {"state", "param_groups"} <= each.keys() for each in optimizers):
        raise CheckpointError(
            f"{path} has no optimizer's state dict, alone or as one of {', '.join(OPTIMIZERS)}: save one with "
            "torch.save(optimizer.state_dict(), path)"
        )
    if names is not None:
        missing = [name for name in names if weights and name not in weights]
        if missing:
            raise CheckpointError(
                f"names has {missing[0]!r}, and the checkpoint has no such weight: give its own names"
            )
        weights, ordered = {name: weights[name] for name in names} if weights else {}, True
    groups = [(group, each["state"]) for each in optimizers for group in each["param_groups"]]
    shapes = [[_shape(state.get(key) or {}) for key in group["params"]] for group, state in groups]
    known: dict[str, tuple[int, ...]] = {name: tuple(x.shape) for name, x in weights.items()}
    guesses = matched(shapes, known, ordered)
    parameters: list[SavedParameter] = []
    for index, (group, state) in enumerate(groups):
        own = group.get("param_names") or [None] * len(group["params"])
        for number, (key, guess) in enumerate(zip(group["params"], guesses[index], strict=True)):
            if not state.get(key):
                continue
            given = None if own[number] is None else str(own[number])
            home = guess if given is None else named(given, list(weights))
            shape = shapes[index][number] or (known.get(home) if home else None)
            weight = weights[home] if home is not None and known[home] == shape else None
            name = given or home or f"group {index}, parameter {number}"
            extra = {k: group[k] for k in ("cautious_decay", "initial_lr", "stochastic_rounding") if k in group}
            parameters.append(SavedParameter(name, {**hyper(group), **extra}, state[key], weight, shape))
    return Saved(parameters, notes=_notes(parameters, weights))


def _notes(parameters: list[SavedParameter], weights: Mapping[str, Tensor]) -> list[str]:
    """Return what a reader must know about names and weights."""
    if not parameters:
        raise CheckpointError("the optimizer of the checkpoint has taken no step: it has no state to look at")
    without = sum(parameter.weight is None for parameter in parameters)
    if not weights:
        return ["the checkpoint has no weights: RMS, rotation, wd * max and updates lost to rounding are unknown"]
    if without:
        return [
            f"{without} of {len(parameters)} parameters could not be matched to a weight for certain: figures that "
            "need weights are left out. --names FILE, with the names of model.parameters() in their order, tells them"
        ]
    return []


def _shape(state: Mapping[str, Any]) -> Shape:
    """Return the shape of a parameter from its state; None where the state does not tell."""
    if "exp_avg" in state:
        return tuple(state["exp_avg"].shape)
    return tuple(state["packed16"].shape[:-1]) if "packed16" in state else None


def _ours(path: Path) -> Saved:
    """Return the parameters of a safetensors file that `adamas.checkpoint.save` wrote."""
    import torch

    checkpoint = file.read(path)
    settings = {name: dict(group.hyper) for group in checkpoint.groups for name in group.names}
    parameters: list[SavedParameter] = []
    for name, packed in checkpoint.entries.items():
        entry = decoded(packed)
        arrays = {key: torch.from_numpy(entry.arrays[key].copy()) for key in (*WIDE, MAXIMUM) if key in entry.arrays}
        weight = torch.from_numpy(entry.arrays[WEIGHT].copy()) if WEIGHT in entry.arrays else None
        if entry.step and prod(entry.shape):
            state = {"step": entry.step, **arrays}
            parameters.append(SavedParameter(name, settings[name], state, weight, entry.shape, False))
    weights = {each.name: each.weight for each in parameters if each.weight is not None}
    return Saved(parameters, checkpoint.eps_mode, notes=_notes(parameters, weights))


def is_adam(state: Mapping[str, Any]) -> bool:
    """Return whether a state holds the moments of an Adam, in any of our formats."""
    return all(key in state for key in WIDE) or any(key in state for key in PACKED)
