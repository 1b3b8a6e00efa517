"""`save`, `load`, `load_weights` and `convert`: files on one side, live optimizers on the other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from adamas.checkpoint import file
from adamas.checkpoint.contents import (
    AMSGRAD,
    FRAMEWORKS,
    HYPER,
    WEIGHT,
    Checkpoint,
    CheckpointError,
    Framework,
    Target,
    listed,
)
from adamas.checkpoint.conversion import Report, converted, moved
from adamas.checkpoint.frameworks import framework_of
from adamas.checkpoint.rules import Rules
from adamas.decay import DECAY_MODES

PathLike = str | os.PathLike[str]
RulesLike = Rules | Mapping[str, Any] | PathLike | None
COMPARED = ("lr", "betas", "eps", "weight_decay", "decay", "base_lr", "maximize")


class Front(Protocol):
    """What the module of each framework offers: `torch_state`, `jax_state`, `keras_state`, `numpy_state`."""

    def describe(self, optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
        """Return names, shapes and hyper-parameters of an optimizer, without its state."""
        ...

    def read(self, optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
        """Return the state of an optimizer, with weights where they are known."""
        ...

    def write(self, optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
        """Put a state that fits into an optimizer, and return the optimizer or a new state."""
        ...

    def shapes_of(self, params: Any) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of a model or a tree, by name."""
        ...

    def write_weights(self, params: Any, checkpoint: Checkpoint) -> Any:
        """Put weights that fit into a model, or return a new tree."""
        ...


def _front(framework: Framework) -> Front:
    return import_module(f"adamas.checkpoint.{framework}_state")  # pyright: ignore[reportReturnType]


def save(
    path: PathLike, optimizer: Any, params: Any = None, *, hyper: Mapping[str, Any] | None = None, weights: bool = True
) -> None:
    """Write the state of an Adam or AdamW to a safetensors file, in one operation.

    Args:
        path: the file, which is replaced where it exists.
        optimizer: an optimizer of torch.optim, keras.optimizers or Adamas; for JAX, the state of optax or adamas.jax.
        params: the weights, which also give names. torch: the model or its named parameters; not needed where the
            optimizer was made from named parameters. JAX: the tree; without it no weights are saved. Keras and NumPy:
            not needed.
        hyper: what a JAX state does not record: `lr`, `betas`, `eps`, `weight_decay`, `decay`, and `amsgrad`. A maximum
            in a fused state needs amsgrad="raw" or "corrected"; in an optax state it is taken for "corrected".
        weights: whether to save the weights beside the state.

    Raises:
        CheckpointError: the state is no Adam's, or has no names, or two parameters have one name.

    Example:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> path = f"{tempfile.mkdtemp()}/state.safetensors"
        >>> save(path, torch.optim.AdamW(model.parameters()), model)
        >>> _ = load(path, torch.optim.AdamW(model.named_parameters()))
    """
    framework = framework_of(optimizer)
    checkpoint = _front(framework).read(optimizer, params, _checked(hyper, framework))
    if not weights:
        for entry in checkpoint.entries.values():
            entry.arrays.pop(WEIGHT, None)
    file.write(checkpoint, path)


def load(
    path: PathLike,
    optimizer: Any,
    params: Any = None,
    *,
    rules: RulesLike = None,
    hyper: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> Any:
    """Read the state of an Adam or AdamW into an optimizer, and convert it where another framework saved it.

    The optimizer's hyper-parameters stay as they are. A warning lists those that differ from the checkpoint's.

    Args:
        path: a file that `save` or `convert` wrote.
        optimizer: an optimizer of torch, Keras or NumPy; for JAX, a state as `init` returns it.
        params: as for `save`. A Keras model builds an optimizer that is not built yet.
        rules: new names and transforms, as for `convert`.
        hyper: the hyper-parameters behind a JAX state, as for `save`.
        strict: False takes the largest step where parameters have different steps and the framework counts only once.

    Returns:
        The optimizer, changed in place; for JAX, a new state.

    Raises:
        CheckpointError: the file is damaged, or does not fit; the optimizer is as it was.
    """
    framework = framework_of(optimizer)
    params = list(params) if isinstance(params, Iterator) else params  # it is read twice
    front, target = _front(framework), _front(framework).describe(optimizer, params, _checked(hyper, framework))
    checkpoint, report = converted(file.read(path), framework, Rules.read(rules), strict)
    report.raise_refusals()
    _check_names(checkpoint, target.shapes)
    kinds = {group.hyper.get("amsgrad") for group in target.groups}
    if kinds != {checkpoint.amsgrad}:
        raise CheckpointError(
            f"amsgrad: the running maximum of the checkpoint is {_kind(checkpoint.amsgrad)}, that of the optimizer is "
            f"{' and '.join(sorted(map(_kind, kinds)))}: one does not give the other. Make both with the same amsgrad"
        )
    _warn_of_differences(checkpoint, target)
    return front.write(optimizer, params, checkpoint)


def load_weights(path: PathLike, params: Any, *, rules: RulesLike = None, strict: bool = True) -> Any:
    """Read the weights of a checkpoint into a model, and convert them where another framework saved them.

    Args:
        path: a file that `save` or `convert` wrote.
        params: a torch module, a Keras model, or a tree of JAX or NumPy arrays. Only parameters are written.
        rules: new names and transforms, as for `convert`.
        strict: False keeps weights that the checkpoint lacks, such as those of frozen layers.

    Returns:
        The model, changed in place; for JAX, a new tree.

    Raises:
        CheckpointError: the file has no weights, is damaged, or does not fit; the model is as it was.
    """
    framework = framework_of(params)
    front = _front(framework)
    checkpoint, report = moved(file.read(path), framework, Rules.read(rules))
    report.raise_refusals()
    shapes = front.shapes_of(params)
    _check_names(checkpoint, shapes if strict else {n: each for n, each in shapes.items() if n in checkpoint.entries})
    without = [name for name, entry in checkpoint.entries.items() if WEIGHT not in entry.arrays]
    if without:
        raise CheckpointError(f"{path} has no weights of {listed(without)}: save them with weights=True and params=...")
    return front.write_weights(params, checkpoint)


def convert(
    source: PathLike,
    path: PathLike | None = None,
    *,
    to: str,
    rules: RulesLike = None,
    strict: bool = True,
) -> Report:
    """Convert a checkpoint to the names and shapes of another framework, and write the result to a file.

    Args:
        source: a file that `save` wrote, or a state dict of torch in a `.pt` or `.pth` file.
        path: the new file; None only reports, and raises nothing that the report can tell.
        to: "torch", "jax", "keras" or "numpy".
        rules: a JSON file or a mapping from names to a new name, `[name, transform]` or `[name, transform, sizes]`.
        strict: False takes the largest step where parameters have different steps and the framework counts only once.

    Returns:
        What became of each parameter, and notes on hyper-parameters that mean something else there.

    Raises:
        CheckpointError: something cannot be converted; nothing is written.
    """
    if to not in FRAMEWORKS:
        raise CheckpointError(f"to={to!r} must be one of {', '.join(FRAMEWORKS)}")
    new, report = converted(_read_any(source), to, Rules.read(rules), strict)
    if path is not None:
        report.raise_refusals()
        file.write(new, path)
    return report


def _read_any(path: PathLike) -> Checkpoint:
    if Path(path).suffix in (".pt", ".pth", ".bin", ".ckpt"):
        from adamas.checkpoint import torch_state

        return torch_state.read_file(path)
    return file.read(path)


def _checked(hyper: Mapping[str, Any] | None, framework: Framework) -> dict[str, Any]:
    """Return given hyper-parameters as plain values.

    Raises:
        CheckpointError: a name is not known, a value is not of its kind, or the optimizer tells them itself.
    """
    if hyper and framework != "jax":
        raise CheckpointError(
            f"hyper={dict(hyper)} is for states of JAX only: this optimizer has hyper-parameters of its own. Set them "
            "there, and leave hyper out"
        )
    checked: dict[str, Any] = {}
    for key, value in (hyper or {}).items():
        words = {"amsgrad": AMSGRAD, "decay": DECAY_MODES, "maximize": (False, True)}.get(key)
        if key not in HYPER or (words is not None and value not in words):
            allowed = f"{key} must be one of {words}" if words else f"the names are {', '.join(HYPER)}"
            raise CheckpointError(f"hyper has {key}={value!r}: {allowed}")
        checked[key] = value if words else [float(beta) for beta in value] if key == "betas" else float(value)
    return checked


def _kind(amsgrad: Any) -> str:
    return "absent" if amsgrad is None else f"of {amsgrad} second moments"


def _check_names(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """Raise CheckpointError unless names and shapes agree."""

    def missing(names: Collection[str], others: Collection[str]) -> str:
        return listed([name for name in names if name not in others])

    if checkpoint.entries.keys() != shapes.keys():
        raise CheckpointError(
            f"names do not agree. Only in the checkpoint: {missing(checkpoint.entries, shapes)}. Only in the optimizer "
            f"or model: {missing(shapes, checkpoint.entries)}. Give rules from the former to the latter; null leaves a "
            "parameter out"
        )
    for name, shape in shapes.items():
        found = checkpoint.entries[name].shape
        if shape is not None and found != shape:
            raise CheckpointError(
                f"{name} has shape {found} in the checkpoint and {shape} in the optimizer or model: give a rule with a "
                "transform, or the right model"
            )


def _warn_of_differences(checkpoint: Checkpoint, target: Target) -> None:
    """Warn of hyper-parameters that both sides record, with different values."""
    saved = {name: group.hyper for group in checkpoint.groups for name in group.names}
    found: dict[str, None] = {}
    for group in target.groups:
        for name in group.names:
            for key in COMPARED:
                old, new = _effective(saved[name], key), _effective(group.hyper, key)
                if old is not None and new is not None and not _equal(old, new):
                    found[f"{key}={new} (checkpoint: {old})"] = None
    if found:
        warnings.warn(
            f"the optimizer keeps its own hyper-parameters, which differ from the checkpoint's: {listed(found)}",
            stacklevel=3,
        )


def _effective(hyper: Mapping[str, Any], key: str) -> Any:
    """Return a hyper-parameter as it acts: without weight decay there is no rule of it."""
    if hyper.get("weight_decay") == 0 and key in ("decay", "base_lr"):
        return "none" if key == "decay" else None
    return hyper.get(key)


def _equal(old: Any, new: Any) -> bool:
    """Whether two hyper-parameters are the same number, also where one was kept in float32."""
    pairs = zip(old, new, strict=True) if isinstance(old, list) else [(old, new)]
    return all(a == b or (isinstance(a, float) and abs(a - b) < 1e-6 * abs(a)) for a, b in pairs)
