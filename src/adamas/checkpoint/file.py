"""Write and read a checkpoint as a safetensors file, layout version 1: `docs/checkpoints.md` describes it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adamas.checkpoint.contents import (
    AMSGRAD,
    FRAMEWORKS,
    KEYS,
    Array,
    Checkpoint,
    CheckpointError,
    Entry,
    Group,
    check,
    plain,
)
from adamas.whole_file import whole_file

FORMAT, VERSION = "adamas.checkpoint", 1


def write(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a new file in the same folder, which then replaces `path` in one operation.

    Raises:
        OSError: there is no such folder, or the file cannot be written.
    """
    check(checkpoint)
    path = Path(os.path.realpath(path))  # a link stays one, and the file that it names is replaced
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written, because {path.parent} is no folder: make it first")
    tensors = {
        f"{key}/{name}": plain(array, f"{key} of {name}")
        for name, entry in checkpoint.entries.items()
        for key, array in entry.arrays.items()
    }
    tensors |= {f"step/{name}": np.asarray(entry.step, np.int64) for name, entry in checkpoint.entries.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "layout": checkpoint.layout,
        "source": checkpoint.source,
        "conventions": json.dumps({"eps": checkpoint.eps_mode, "amsgrad": checkpoint.amsgrad}),
        "groups": json.dumps([{"names": group.names, **group.hyper} for group in checkpoint.groups]),
        "shapes": json.dumps({name: entry.shape for name, entry in checkpoint.entries.items()}),
    }
    metadata["checksum"] = checksum(tensors, metadata)
    with whole_file(path) as unfinished:  # restores permissions: safetensors lets nobody else read
        try:
            save_file(tensors, unfinished, metadata)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        CheckpointError: the file is no safetensors file, is damaged, or has a layout that this version cannot read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            _check_version(path, metadata)
            tensors: dict[str, Array] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is {_kind(path)}, not a whole safetensors file ({error}). Nothing is unpickled here. Save with "
            "adamas.checkpoint.save, or use another copy; `adamas convert` reads a torch state dict in a .pt file"
        ) from error
    named, found = metadata.get("checksum"), checksum(tensors, metadata)
    if named != found:
        raise CheckpointError(
            f"{path} has checksum={named!r}, and its contents have {found!r}: it is damaged. Use another copy"
        )
    try:
        checkpoint = _from_tensors(tensors, metadata)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} does not have the layout of version {VERSION}: {error}") from error
    check(checkpoint)
    return checkpoint


def _kind(path: str | os.PathLike[str]) -> str:
    """Return what a file probably is that is no safetensors file. A pickle begins as some safetensors files do."""
    with open(path, "rb") as file:
        start = file.read(4)
    kinds = {b"PK\x03\x04": "a zip archive, as torch.save writes it", b"\x80": "a pickle", b"\x89HDF": "an HDF5 file"}
    return next((what for begin, what in kinds.items() if start.startswith(begin)), "truncated or damaged")


def _check_version(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} holds tensors, but format={metadata.get('format')!r} must be {FORMAT!r}: it is no checkpoint of "
            "an optimizer. Save one with adamas.checkpoint.save"
        )
    version = metadata.get("version", "")
    if not version.isdecimal() or not 1 <= int(version) <= VERSION:
        raise CheckpointError(
            f"{path} has version={version!r} of the layout, and this Adamas reads 1 to {VERSION}: install a newer one"
        )


def _from_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Checkpoint:
    conventions: dict[str, Any] = json.loads(metadata["conventions"])
    shapes: dict[str, list[int]] = json.loads(metadata["shapes"])
    layout, eps_mode, amsgrad = metadata["layout"], conventions["eps"], conventions["amsgrad"]
    if layout not in FRAMEWORKS or eps_mode not in ("alg1", "hat") or amsgrad not in AMSGRAD:
        raise ValueError(f"layout={layout!r} with conventions={conventions} is not known")
    arrays: dict[str, dict[str, Array]] = {name: {} for name in shapes}
    for path, array in tensors.items():
        key, _, name = path.partition("/")
        if (key != "step" and key not in KEYS) or name not in arrays:
            raise ValueError(f"the tensor {path!r} has an unknown kind or parameter")
        arrays[name][key] = array
    entries = {name: Entry(_step(name, found), tuple(map(int, shapes[name])), found) for name, found in arrays.items()}
    groups = [Group(list(map(str, group.pop("names"))), group) for group in json.loads(metadata["groups"])]
    return Checkpoint(layout, metadata.get("source", ""), eps_mode, amsgrad, entries, groups)  # pyright: ignore[reportArgumentType]


def _step(name: str, arrays: dict[str, Array]) -> Any:
    """Take the step out of the arrays of a parameter; `check` judges its value."""
    if "step" not in arrays:
        raise ValueError(f"the tensor step/{name} is missing")
    step = arrays.pop("step")
    if step.shape != () or step.dtype.kind not in "iuf":
        raise ValueError(f"step/{name} is {step.dtype} of shape {step.shape}: it must be one number")
    return step.item()


def checksum(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Return a CRC-32 over the tensors and the other metadata, because safetensors itself notices no changed bit."""
    crc = 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        crc = zlib.crc32(f"{name} {array.dtype.name} {tensors[name].shape}".encode(), crc)
        crc = zlib.crc32(memoryview(array.reshape(-1).view(np.uint8)), crc)  # pyright: ignore[reportArgumentType]
    for key in sorted(metadata):
        if key != "checksum":
            crc = zlib.crc32(f"{key}={metadata[key]}".encode(), crc)
    return f"crc32:{crc:08x}"
