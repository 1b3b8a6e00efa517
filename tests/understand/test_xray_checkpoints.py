"""`adamas xray` on files and folders of torch, Hugging Face's Trainer, Lightning and ours; and on hostile ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import adamas.torch
from adamas.checkpoint import save
from adamas.cli import app
from adamas.understand import XRay
from tests.understand.runs import model, train

OWN = ["0.weight", "0.bias", "2.weight", "2.bias"]


def xray(*arguments: Any) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of `adamas xray`."""
    result = CliRunner().invoke(app, ["xray", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def figures(*arguments: Any) -> dict[str, Any]:
    code, out, err = xray(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(*arguments: Any) -> str:
    code, out, err = xray(*arguments)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    return err


class Trained:
    """A short run and its live figures at the last step."""

    def __init__(self, cls: Any, groups: bool = False, **options: Any) -> None:
        self.network = model()
        params = list(self.network.parameters())
        split = [{"params": [p for p in params if p.ndim >= 2]}, {"params": [p for p in params if p.ndim < 2]}]
        if groups:
            split[1]["weight_decay"] = 0.0
        self.optimizer = cls(split if groups else params, lr=1e-3, **options)
        with XRay(self.optimizer, self.network, every=20) as live:
            train(self.network, self.optimizer, 40)
        self.live = live.readings[-1]

    def whole(self) -> dict[str, Any]:
        return {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}


CLASSES = [
    (torch.optim.Adam, {"weight_decay": 1e-2}), (torch.optim.AdamW, {"weight_decay": 0.1}),
    (adamas.torch.Adam, {"weight_decay": 1e-2, "amsgrad": True}),
    (adamas.torch.AdamW, {"weight_decay": 1e-3, "decay": "independent"}),
    (adamas.torch.AdamW, {"weight_decay": 0.1, "cautious_decay": True}),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "options"), CLASSES, ids=str)
def test_a_checkpoint_tells_what_the_live_x_ray_saw(cls: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """The same step; under L2 lambda * theta stands for its average, which moves the median rate by a few percent."""
    trained = Trained(cls, **options)
    torch.save(trained.whole(), tmp_path / "c.pt")
    found = figures(tmp_path / "c.pt")
    assert [row["layer"] for row in found["layers"]] == OWN
    assert found["step"] == 40
    l2 = cls.__name__ == "Adam"
    for row, live in zip(found["layers"], trained.live.layers, strict=True):
        assert row["rate_p50"] == pytest.approx(live.rate_p50, rel=0.1 if l2 else 1e-6, abs=1e-12)
        assert row["rotation"] == pytest.approx(live.rotation, rel=1e-3)
        for key in ("rms", "equivalent", "rms_equilibrium", "rotation_equilibrium", "decay_times_max"):
            assert row[key] == pytest.approx(getattr(live, key), rel=1e-3), key
        assert row["decay_part"] == ("approximate" if l2 else "exact")


def test_every_usual_file_and_folder_is_read(tmp_path: Path) -> None:
    trained = Trained(torch.optim.AdamW, weight_decay=0.1)
    whole, weights = trained.whole(), trained.network.state_dict()
    torch.save(whole["optimizer"], tmp_path / "alone.pth")
    torch.save({"model_state_dict": weights, "optimizer_state_dict": whole["optimizer"]}, tmp_path / "usual.bin")
    torch.save(
        {"state_dict": weights, "optimizer_states": [whole["optimizer"]], "epoch": 3}, tmp_path / "lightning.ckpt"
    )
    (tmp_path / "lightning" / "checkpoints").mkdir(parents=True)
    (tmp_path / "lightning" / "checkpoints" / "last.ckpt").write_bytes((tmp_path / "lightning.ckpt").read_bytes())
    save(tmp_path / "ours.safetensors", trained.optimizer, trained.network)
    trainer, sharded = tmp_path / "checkpoint-40", tmp_path / "sharded"
    for folder in (trainer, sharded):
        folder.mkdir()
        torch.save(whole["optimizer"], folder / "optimizer.pt")
    torch.save(weights, trainer / "pytorch_model.bin")
    (trainer / "trainer_state.json").write_text('{"global_step": 40, "epoch": 5.0}')
    shards = {"a.safetensors": OWN[:2], "b.safetensors": OWN[2:]}
    for name, keys in shards.items():
        save_file({key: weights[key] for key in keys}, sharded / name)
    index = {"weight_map": {key: name for name, keys in shards.items() for key in keys}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in ("usual.bin", "lightning.ckpt", "lightning", "ours.safetensors", "checkpoint-40", "sharded"):
        found = figures(tmp_path / path)
        # Safetensors sort names, but each shape occurs once here.
        assert [row["layer"] for row in found["layers"]] == OWN, path
        assert found["total"]["rate_p50"] == pytest.approx(1e-4), path
        assert found["layers"][0]["rms"] == pytest.approx(trained.live.layers[0].rms, rel=1e-6)
        assert found["notes"] == [], path
    assert figures(tmp_path / "checkpoint-40")["steps_per_epoch"] == 8
    alone = figures(tmp_path / "alone.pth")
    assert alone["layers"][0]["layer"] == "group 0, parameter 0"
    assert alone["layers"][0]["rms"] is None
    assert "no weights" in alone["notes"][0]
    code, out, _ = xray(tmp_path / "alone.pth")
    assert code == 0
    assert "note: the checkpoint has no weights" in out


def test_two_groups_are_matched_by_what_decays(tmp_path: Path) -> None:
    trained = Trained(torch.optim.Adam, groups=True, weight_decay=1e-2)
    torch.save(trained.whole(), tmp_path / "c.pt")
    found = figures(tmp_path / "c.pt")
    assert [row["layer"] for row in found["layers"]] == ["0.weight", "2.weight", "0.bias", "2.bias"]
    assert [row["rule"] for row in found["layers"]] == ["l2", "l2", "none", "none"]
    assert found["total"]["rule"] == "mixed"


def test_names_that_are_not_certain_are_not_claimed(tmp_path: Path) -> None:
    """Two layers of one shape in a safetensors file, whose names are sorted: --names tells which is which."""
    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"z": torch.nn.Linear(4, 4), "a": torch.nn.Linear(4, 4)})
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    network["a"](network["z"](torch.randn(8, 4))).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    found = figures(tmp_path)
    assert [row["layer"] for row in found["layers"]] == [f"group 0, parameter {i}" for i in range(4)]
    assert "4 of 4 parameters could not be matched" in found["notes"][0]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(name for name, _ in network.named_parameters()))
    found = figures(tmp_path, "--names", names)
    assert [row["layer"] for row in found["layers"]] == ["z.weight", "z.bias", "a.weight", "a.bias"]
    assert found["layers"][0]["rms"] == pytest.approx(float(network["z"].weight.detach().square().mean().sqrt()))
    names.write_text("z.weight\nwrong.bias\na.weight\na.bias")
    assert "wrong.bias" in refused(tmp_path, "--names", names)


@pytest.mark.parametrize("state", ["packed16", "packed12", "bfloat16"])
def test_states_in_fewer_bits_are_decoded(state: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(12, 96), torch.nn.Linear(96, 80), torch.nn.Linear(80, 5)).bfloat16()
    optimizer = adamas.torch.Adam(
        network.named_parameters(), lr=1e-3, weight_decay=1e-2, state_dtype=state, master_weight_bits=24
    )
    train(network, optimizer, 5)
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    save(tmp_path / "c.safetensors", optimizer)
    first, second = (figures(tmp_path / name)["layers"][2] for name in ("c.pt", "c.safetensors"))
    weight = network[1].weight
    root = (optimizer.moments(weight)[1] / (1 - 0.999**5)).sqrt().numpy().reshape(-1) + 1e-8
    # A sample of 1,024 of 7,680 elements: the median to 5 % of the ranks.
    median = 1e-3 * 1e-2 / first["rate_p50"]
    assert abs((root < median).mean() - 0.5) < 0.05
    assert first["rms"] == pytest.approx(float(optimizer.master(weight).square().mean().sqrt()), rel=1e-6)
    assert {key: first[key] for key in ("rate_p50", "rms", "rotation")} == pytest.approx(
        {key: second[key] for key in ("rate_p50", "rms", "rotation")}, rel=1e-6
    )


def test_adam_or_adamw_is_asked_for_where_the_file_does_not_say(tmp_path: Path) -> None:
    """A state dict of torch before 2.7."""
    whole = Trained(torch.optim.AdamW, weight_decay=0.1).whole()
    for group in whole["optimizer"]["param_groups"]:
        del group["decoupled_weight_decay"]
    torch.save(whole, tmp_path / "old.pt")
    assert "--optimizer adam or --optimizer adamw" in refused(tmp_path / "old.pt")
    assert figures(tmp_path / "old.pt", "--optimizer", "adamw")["total"]["rule"] == "lr"
    assert figures(tmp_path / "old.pt", "--optimizer", "adam")["total"]["rule"] == "l2"
    assert "must be adam or adamw" in refused(tmp_path / "old.pt", "--optimizer", "sgd")
    torch.save(Trained(torch.optim.Adam, weight_decay=0.1).whole(), tmp_path / "new.pt")
    assert "is not what the checkpoint says" in refused(tmp_path / "new.pt", "--optimizer", "adamw")


def test_the_end_of_a_schedule_has_a_rate_of_zero(tmp_path: Path) -> None:
    trained = Trained(torch.optim.AdamW, weight_decay=0.1)
    whole = trained.whole()
    whole["optimizer"]["param_groups"][0] |= {"lr": 0.0, "initial_lr": 0.01}
    torch.save(whole, tmp_path / "c.pt")
    found = figures(tmp_path / "c.pt")
    assert found["total"]["rate_p50"] == pytest.approx(1e-3)
    assert "ended at lr=0" in found["notes"][0]
    assert figures(tmp_path / "c.pt", "--lr", "0.002", "--weight-decay", "0.5")["total"]["rate_p50"] == pytest.approx(
        1e-3
    )
    del whole["optimizer"]["param_groups"][0]["initial_lr"]
    torch.save(whole, tmp_path / "c.pt")
    assert "give --lr" in refused(tmp_path / "c.pt")


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    trap, whole = tmp_path / "trap", Trained(torch.optim.AdamW).whole()
    torch.save({**whole, "extra": Payload(trap)}, tmp_path / "payload.pt")
    torch.save({**whole, "extra": Payload(trap)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "folder").mkdir()
    torch.save(whole["optimizer"], tmp_path / "folder" / "optimizer.pt")
    torch.save({"w": Payload(trap)}, tmp_path / "folder" / "pytorch_model.bin")
    for name in ("payload.pt", "old.pt", "folder"):
        assert "never unpickled" in refused(tmp_path / name)
    assert not trap.exists()
    torch.load(tmp_path / "payload.pt", weights_only=False)  # the payload is a real one
    assert trap.exists()


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    trained = Trained(torch.optim.AdamW, weight_decay=0.1)
    torch.save(trained.whole(), tmp_path / "good.pt")
    data = (tmp_path / "good.pt").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.pt").write_bytes(data[: int(share * len(data))])
        assert "cut.pt" in refused(tmp_path / "cut.pt")
    save(tmp_path / "ours.safetensors", trained.optimizer, trained.network)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "ours.safetensors").read_bytes()[:-100])
    assert "safetensors" in refused(tmp_path / "cut.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert "no checkpoint of an optimizer" in refused(tmp_path / "weights.safetensors")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "image.png" in refused(tmp_path / "image.png")
    assert "does not exist" in refused(tmp_path / "missing.pt")
    network = model()
    for name, optimizer in (("sgd", torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)),
                            ("nadam", torch.optim.NAdam(network.parameters()))):  # fmt: skip
        train(network, optimizer, 2)
        torch.save(optimizer.state_dict(), tmp_path / f"{name}.pt")
        assert "not those of an Adam" in refused(tmp_path / f"{name}.pt")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert "no optimizer's state dict" in refused(tmp_path / "model.pt")
    torch.save(torch.optim.Adam(network.parameters()).state_dict(), tmp_path / "fresh.pt")
    assert "no step" in refused(tmp_path / "fresh.pt")
    (tmp_path / "empty").mkdir()
    assert "no state of an optimizer" in refused(tmp_path / "empty")
    torch.save(
        {"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]}, tmp_path / "x.pt"
    )
    assert "not those of an Adam" in refused(tmp_path / "x.pt")


DAMAGE = [
    ("exp_avg_sq", torch.ones(3)), ("exp_avg", None), ("step", -1), ("step", "five"), ("exp_avg", [1.0]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), DAMAGE, ids=str)
def test_damaged_states_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    whole = Trained(torch.optim.AdamW).whole()
    whole["optimizer"]["state"][0][key] = value
    torch.save(whole, tmp_path / "c.pt")
    assert refused(tmp_path / "c.pt")


def test_windows_are_predicted_by_the_rules_of_compare(tmp_path: Path) -> None:
    """AdamW's timescale is 3, 1 and 1/3 of the run; L2's is that times percentiles of sqrt(v_hat)."""
    trained = Trained(torch.optim.Adam, weight_decay=0.0)
    torch.save(trained.whole(), tmp_path / "pilot.pt")
    found = figures(tmp_path / "pilot.pt", "--predict", "--epochs", 10, "--steps-per-epoch", 8)["windows"]
    assert [found["adamw"][key] for key in ("low", "central", "high")] == pytest.approx(
        [1 / (1e-3 * 80 * factor) for factor in (3, 1, 1 / 3)]
    )
    states = trained.optimizer.state.values()
    roots = np.concatenate([(s["exp_avg_sq"] / (1 - 0.999**40)).sqrt().numpy().reshape(-1) for s in states])
    low, middle, high = np.percentile(roots, (10, 50, 90))
    assert found["l2"]["low"] == pytest.approx(found["adamw"]["low"] * low, rel=0.02)
    assert found["l2"]["central"] == pytest.approx(found["adamw"]["central"] * middle, rel=0.02)
    assert found["l2"]["high"] == pytest.approx(found["adamw"]["high"] * high, rel=0.02)
    assert "steps_per_epoch" in refused(tmp_path / "pilot.pt", "--predict", "--epochs", 10)
    assert "together" in refused(tmp_path / "pilot.pt", "--predict")
    code, out, _ = xray(tmp_path / "pilot.pt", "--predict", "--epochs", 10, "--steps-per-epoch", 8)
    assert code == 0
    assert "try weight_decay=12.5 first" in out


def test_the_page_of_a_checkpoint_is_written_whole(tmp_path: Path) -> None:
    trained = Trained(torch.optim.Adam, weight_decay=1e-2)
    torch.save(trained.whole(), tmp_path / "<b>权重.pt")
    out = tmp_path / "page.html"
    for lang, written, word in (("en", "written to", "Does decay treat"), ("zh", "已写入", "衰减对所有权重")):
        code, text, err = xray(tmp_path / "<b>权重.pt", "--out", out, "--lang", lang)
        assert code == 0, err
        assert written in text
        page = out.read_text(encoding="utf-8")
        assert word in page
        assert "&lt;b&gt;权重.pt" in page
    assert "must be en or zh" in refused(tmp_path / "<b>权重.pt", "--lang", "fr")
    assert "must be a finite number" in refused(tmp_path / "<b>权重.pt", "--lr", "0")
