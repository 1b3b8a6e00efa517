"""The file: what is written is read, and anything else is refused, never half read."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from adamas.checkpoint import CheckpointError, file
from adamas.checkpoint.contents import Checkpoint, Entry, Group
from adamas.checkpoint.encoding import encoded

HYPER = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "decay": "lr"}


def example(packed: str | None = None, shape: tuple[int, ...] = (3, 5)) -> Checkpoint:
    random = np.random.default_rng(0)
    entries: dict[str, Entry] = {}
    for name in ("a.weight", "b/w"):
        arrays = {key: random.random(shape, np.float32) for key in ("param", "exp_avg", "exp_avg_sq")}
        entries[name] = Entry(7, shape, arrays)
        if packed:
            entries[name] = encoded(entries[name], packed)
    entries["scalar"] = Entry(7, (), {key: np.ones((), np.float64) for key in ("exp_avg", "exp_avg_sq")})
    return Checkpoint("torch", "torch.optim.AdamW", "alg1", None, entries, [Group(list(entries), HYPER)])


@pytest.mark.parametrize(
    ("packed", "shape"),
    [(None, (3, 5)), (None, (0, 4)), *((f"packed{n}", shape) for n in (16, 12) for shape in [(3, 5), (2, 3, 1, 300)])],
)
def test_what_is_written_is_read(tmp_path: Path, packed: str | None, shape: tuple[int, ...]) -> None:
    written = example(packed, shape)
    file.write(written, tmp_path / "x.safetensors")
    found = file.read(tmp_path / "x.safetensors")
    assert found.groups == written.groups
    assert (found.layout, found.source, found.eps_mode, found.amsgrad) == ("torch", "torch.optim.AdamW", "alg1", None)
    assert list(found.entries) == list(written.entries)
    for name, entry in written.entries.items():
        assert found.entries[name][:2] == entry[:2]
        assert found.entries[name].arrays.keys() == entry.arrays.keys()
        for key, array in entry.arrays.items():
            assert found.entries[name].arrays[key].dtype == array.dtype
            assert np.array_equal(found.entries[name].arrays[key], array)


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    file.write(example(), tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "numpy") as opened:
        keys, metadata = list(opened.keys()), opened.metadata()
        step = opened.get_tensor("step/b/w")
    assert {"exp_avg/a.weight", "exp_avg_sq/a.weight", "step/a.weight", "param/a.weight"} <= set(keys)
    assert (step.dtype, step.shape, step.item()) == (np.int64, (), 7)
    assert (metadata["format"], metadata["version"], metadata["layout"]) == ("adamas.checkpoint", "1", "torch")
    assert json.loads(metadata["groups"])[0]["betas"] == [0.9, 0.999]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    file.write(example(), path)
    before = path.read_bytes()

    def full(tensors: Any, unfinished: Path, metadata: Any) -> None:
        Path(unfinished).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(file, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        file.write(example(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_or_missing_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    if not path.exists():
        file.write(example(), path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:place]
    else:
        damaged = whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :]
    other = tmp_path / "damaged.safetensors"
    other.write_bytes(damaged)
    with pytest.raises(CheckpointError):
        file.read(other)


class Runs:
    """An object that, unpickled, would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 5):
        Path("x.safetensors").write_bytes(pickle.dumps(Runs(), protocol=protocol))
        with pytest.raises(CheckpointError, match="is a pickle, not a whole safetensors file"):
            file.read("x.safetensors")
    with zipfile.ZipFile("z.safetensors", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Runs()))
    with pytest.raises(CheckpointError, match="is a zip archive, as torch"):
        file.read("z.safetensors")
    assert not Path("unpickled").exists()


def rewritten(tmp_path: Path, tensors: dict[str, Any] | None = None, **metadata: str | None) -> Path:
    """A file with other tensors and metadata, and the checksum of these."""
    path = tmp_path / "x.safetensors"
    file.write(example(), path)
    with safe_open(path, "numpy") as opened:
        old = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        words = {key: value for key, value in opened.metadata().items() if key != "checksum"}
    words = {key: value for key, value in {**words, **metadata}.items() if value is not None}
    kept = {key: value for key, value in {**old, **(tensors or {})}.items() if value is not None}
    save_file(kept, path, {"checksum": file.checksum(kept, words), **words})
    return path


def test_a_rewritten_file_is_read(tmp_path: Path) -> None:
    assert len(file.read(rewritten(tmp_path)).entries) == 3
    with pytest.raises(CheckpointError, match="has checksum='crc32:0', and its contents have"):
        file.read(rewritten(tmp_path, checksum="crc32:0"))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"version": "2"}, "version='2' of the layout, and this Adamas reads 1 to 1: install a newer one"),
        ({"version": "one"}, "version='one'"),
        ({"version": None}, "version=''"),
        ({"format": None}, "format=None must be 'adamas.checkpoint'"),
        ({"layout": "caffe"}, "layout='caffe'"),
        ({"conventions": None}, "does not have the layout of version 1"),
        ({"conventions": "[]"}, "does not have the layout of version 1"),
        ({"shapes": "{"}, "does not have the layout of version 1"),
        ({"groups": '[{"names": ["a.weight"]}]'}, "each parameter must be in one group"),
        ({"groups": "7"}, "does not have the layout of version 1"),
    ],
)
def test_other_metadata_is_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        file.read(rewritten(tmp_path, **metadata))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"step/scalar": np.float64("nan")}, "step=nan of scalar must be a whole number >= 0"),
        ({"step/scalar": np.int64(-1)}, "step=-1 of scalar must be a whole number >= 0"),
        ({"step/scalar": np.float32(0.5)}, "step=0.5 of scalar must be"),
        ({"step/scalar": np.float64("inf")}, "step=inf of scalar must be"),
        ({"step/scalar": np.zeros(2)}, "must be one number"),
        ({"step/scalar": None}, "step/scalar is missing"),
        ({"exp_avg/scalar": None}, r"scalar lacks \['exp_avg'\]"),
        ({"exp_avg/scalar": np.zeros(2)}, r"exp_avg of scalar is float64 of shape \(2,\)"),
        ({"exp_avg/scalar": np.zeros((), np.int32)}, "exp_avg of scalar is int32"),
        ({"exp_avg/new": np.zeros(2)}, "unknown kind or parameter"),
        ({"exp_max/scalar": np.zeros(2)}, "unknown kind or parameter"),
        ({"packed16/a.weight": np.zeros((3, 5, 2), np.uint8)}, "a.weight lacks"),
        ({"max_exp_avg_sq/scalar": np.zeros(())}, "either all parameters have a running maximum"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    tensors = {key: value if value is None else np.asarray(value) for key, value in tensors.items()}
    with pytest.raises(CheckpointError, match=message):
        file.read(rewritten(tmp_path, tensors))


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        file.read(path)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file.read(tmp_path / "none.safetensors")


def test_a_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    file.write(example(None, (2,)), tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, home = tmp_path / "link", tmp_path / "folder" / "x.safetensors"
    link.symlink_to(home)
    file.write(example(None, (2,)), link)
    assert link.is_symlink()
    assert list(file.read(home).entries) == list(file.read(link).entries)
