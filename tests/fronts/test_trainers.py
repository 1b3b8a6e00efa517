"""Trainers that clip, accumulate, scale, resume and step by themselves, and the objects that they hand back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adamas.torch import AdamW
from tests.fronts.training import STEPS, by_accelerate, by_fabric, by_lightning, by_transformers, by_trl, fresh

# What the trainers warn of (their own deprecations, missing loggers, few workers) is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

# optimizer class, its own max_norm, the trainer's clipping
WAYS: dict[str, tuple[Any, dict[str, Any], float | None]] = {
    "torch, clipped by the trainer": (torch.optim.AdamW, {}, 0.05),
    "ours, clipping": (AdamW, {"max_norm": 0.05}, None),
    "ours, clipped by the trainer": (AdamW, {}, 0.05),
    "nobody clips": (torch.optim.AdamW, {}, None),
    "both clip": (AdamW, {"max_norm": 0.05, "skip_nonfinite": True, "ema_decay": 0.9}, 0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("train", [by_accelerate, by_lightning])
def test_whoever_clips_the_weights_are_the_same(train: Any) -> None:
    """Clipping what is clipped already multiplies by at least 1 - 1e-6/norm, so the ways agree to that."""
    weights = {}
    for way, (cls, options, clip) in WAYS.items():
        got = train(cls, {"lr": 0.01, **options}, clip=clip)
        model, optimizer = got.model, got.optimizer
        weights[way] = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        assert all(int(state["step"]) == STEPS for state in optimizer.state.values())
        if way == "both clip":
            assert optimizer.skipped_steps == 0
            assert 0.049 < optimizer.grad_norm < 0.0500001
    start = torch.nn.utils.parameters_to_vector(fresh().parameters()).detach()
    for way, reached in weights.items():
        assert (reached - start).abs().max() > 0.01, way
        if way == "nobody clips":  # or nothing would have been tested
            assert (reached - weights["torch, clipped by the trainer"]).abs().max() > 1e-3
            continue
        torch.testing.assert_close(reached, weights["torch, clipped by the trainer"], rtol=1e-4, atol=2e-6, msg=way)


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0, "skip_nonfinite": True}], ids=str)
def test_lightning_lets_us_be_clipped_under_mixed_precision(options: dict[str, Any]) -> None:
    """It refuses to clip for an optimizer that unscales inside: ours does so only where fused=True asks for it."""
    from lightning.pytorch.plugins import MixedPrecision

    model = fresh().net
    optimizer = AdamW(model.parameters(), **options)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    model(torch.ones(2, 5)).sum().backward()
    plugin.clip_gradients(optimizer, 1e-3)
    assert torch.nn.utils.get_total_norm([param.grad for param in model.parameters()]) < 1.001e-3


# --- the same losses as torch.optim.AdamW's -------------------------------------------------------------------------

TRAINERS = {
    "accelerate": by_accelerate,
    "fabric": by_fabric,
    "lightning": by_lightning,
    "transformers": by_transformers,
}
SETTINGS: list[dict[str, Any]] = [
    {"clip": 0.05, "accumulate": 2, "resume": True},
    {"clip": 0.05, "resume": True, "bf16": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
@pytest.mark.parametrize("trainer", TRAINERS)
def test_losses_are_those_of_torch(trainer: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """With clipping, accumulation and a resumed run. In bfloat16 an activation may be rounded to the other side."""
    if trainer in ("accelerate", "fabric") and settings.get("accumulate"):
        settings = {**settings, "accumulate": 3}  # so that the run is resumed between two steps
    options = {"lr": 0.01, "weight_decay": 0.1}
    train = TRAINERS[trainer]
    theirs, ours = (
        train(cls, options, folder=tmp_path / name, **settings)
        for cls, name in ((torch.optim.AdamW, "theirs"), (AdamW, "ours"))
    )
    assert len(ours.losses) == STEPS
    assert ours.losses == pytest.approx(theirs.losses, rel=2**-7 if settings.get("bf16") else 1e-5)
    state = ours.optimizer.state[ours.model.net[0].weight]
    assert state["step"] == STEPS // settings.get("accumulate", 1)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_losses_in_trl_are_those_of_torch(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("trl")
    theirs, ours = (
        by_trl(cls, {"lr": 0.01, "weight_decay": 0.1}, folder=tmp_path / name, **settings)
        for cls, name in ((torch.optim.AdamW, "theirs"), (AdamW, "ours"))
    )
    assert len(ours) == STEPS
    assert ours[-1] != ours[0]
    assert ours == pytest.approx(theirs, rel=2**-7 if settings.get("bf16") else 1e-5)


# --- the objects that trainers hand back ----------------------------------------------------------------------------

LIMITED: dict[str, Any] = {"max_norm": 1.0, "skip_nonfinite": True, "ema_decay": 0.9}


def backward(model: torch.nn.Module) -> None:
    model(torch.ones(4, 5)).backward()


def look_through(wrapper: Any, inner: AdamW, model: torch.nn.Module) -> None:
    """A wrapper whose class derives from ours: what is read, set and loaded on it is the optimizer's."""
    for _ in range(2):
        backward(model)
        wrapper.step()
        assert wrapper.grad_norm == inner.grad_norm
        wrapper.zero_grad()
    assert wrapper.skipped_steps == inner.skipped_steps == 0
    wrapper.max_norm, wrapper.skip_nonfinite = 0.125, False
    assert (inner.max_norm, inner.skip_nonfinite) == (0.125, False)
    with pytest.raises(ValueError, match="max_norm"):
        wrapper.max_norm = -1.0
    weight = inner.param_groups[0]["params"][0]
    before = weight.detach().clone()
    with wrapper.averaged():
        assert torch.equal(weight, inner.state[weight]["ema"])
    assert torch.equal(weight, before)
    wrapper.load_state_dict(inner.state_dict())
    assert wrapper.state is inner.state
    assert wrapper.param_groups is inner.param_groups
    backward(model)
    wrapper.step()
    assert wrapper.grad_norm == inner.grad_norm
    assert inner.state[weight]["step"] == 3
    wrapper.zero_grad()


def test_fabric_hands_back_what_reaches_the_optimizer() -> None:
    import lightning

    module = fresh()
    inner = AdamW(module.parameters(), **LIMITED)
    model, wrapper = lightning.Fabric(accelerator="cpu", devices=1).setup(module, inner)
    look_through(wrapper, inner, model)
    with pytest.raises(TypeError, match="zero_grad"):
        wrapper.step(zero_grad=True)


def test_lightning_hands_back_what_reaches_the_optimizer() -> None:
    looked: list[Any] = []

    def look(module: Any, wrapper: Any) -> None:
        look_through(wrapper, module.inner, module.model)
        backward(module.model)
        wrapper.step(zero_grad=True)
        assert all(param.grad is None for param in module.parameters())
        looked.append(wrapper)

    by_lightning(AdamW, LIMITED, prepared=look, automatic=False)
    assert looked


@pytest.mark.parametrize("before", [True, False])
def test_what_is_set_on_accelerates_object_reaches_the_optimizer(before: bool) -> None:
    """It passes nothing on by itself: what is read there, and arguments that it does not know, raise."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    module = fresh()
    inner = AdamW(module.parameters(), **LIMITED)
    if not before:  # the optimizer has stepped before Accelerate had it
        backward(module)
        inner.step(zero_grad=True)
    model, wrapper = accelerator.prepare(module, inner)
    for limit in (0.5, 0.25):
        wrapper.max_norm, wrapper.skip_nonfinite = limit, False
        backward(model)
        wrapper.step()
        assert (inner.max_norm, inner.skip_nonfinite) == (limit, False)
    wrapper.max_norm = -1.0
    with pytest.raises(ValueError, match="max_norm"):
        wrapper.step()
    for call in (lambda: wrapper.grad_norm, lambda: wrapper.skipped_steps, lambda: wrapper.averaged()):
        with pytest.raises(AttributeError):
            call()
    with pytest.raises(TypeError, match="zero_grad"):
        wrapper.step(zero_grad=True)


# --- the ecosystems' own switches -----------------------------------------------------------------------------------


def test_transformers_makes_the_optimizer_from_a_class_and_arguments(tmp_path: Path) -> None:
    made = by_transformers(AdamW, {"lr": 0.01, "max_norm": 1.0, "ema_decay": 0.9}, folder=tmp_path)
    assert type(made.optimizer) is AdamW
    assert made.optimizer.grad_norm > 0
    assert [group["weight_decay"] for group in made.optimizer.param_groups] == [0.0, 0.0]  # the Trainer's groups


@pytest.mark.parametrize("container", ["list", "ListConfig", "list in a group"])
def test_configs_bring_lists_and_text(container: str) -> None:
    """As a dotted path and its arguments from YAML: Hydra, torchtune, Axolotl. YAML reads 1e-3 as text."""
    import yaml

    config = yaml.safe_load("{path: adamas.torch.AdamW, lr: 1.0e-3, betas: [0.9, 0.95], eps: 1.0e-8}")
    if container == "ListConfig":
        config = pytest.importorskip("omegaconf").OmegaConf.create(config)
    module, _, name = config.pop("path").rpartition(".")
    cls, model = getattr(importlib.import_module(module), name), torch.nn.Linear(2, 1)
    if container == "list in a group":
        optimizer = cls([{"params": list(model.parameters()), **config}])
    else:
        optimizer = cls(model.parameters(), **config)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    optimizer.zero_grad()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for key, text in (("lr", "1e-3"), ("eps", "1e-8"), ("weight_decay", "0.1"), ("ema_decay", "0.9")):
        with pytest.raises(ValueError, match=rf"'{text}' is a str \(.*\): write a number, in YAML 1\.0e-3"):
            cls(model.parameters(), **{**config, key: text})
    with pytest.raises(ValueError, match=r"'0\.9' is a str"):
        cls(model.parameters(), betas=["0.9", "0.95"])
    with pytest.raises(ValueError, match=r"max_norm.*'1\.0'"):
        cls(model.parameters(), max_norm="1.0")


def test_lightning_cli_makes_the_optimizer(tmp_path: Path) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Job(BoringModel):
        def __init__(self, optimizer: Callable[[Any], torch.optim.Optimizer] = torch.optim.AdamW) -> None:
            super().__init__()
            self.made = optimizer

        def configure_optimizers(self) -> Any:
            return self.made(self.parameters())

    arguments = ["--model.optimizer=adamas.torch.AdamW", "--model.optimizer.lr=0.01",
                 "--model.optimizer.betas=[0.9,0.95]", "--model.optimizer.max_norm=1.0"]  # fmt: skip
    cli = LightningCLI(Job, args=arguments, run=False, save_config_callback=None)
    optimizer = cli.model.configure_optimizers()
    assert type(optimizer) is AdamW
    assert (optimizer.max_norm, optimizer.param_groups[0]["betas"]) == (1.0, (0.9, 0.95))


def test_timm_makes_the_optimizer_from_its_registry() -> None:
    pytest.importorskip("torchvision")
    optim = pytest.importorskip("timm.optim")
    optim._optim_factory.default_registry.register(optim.OptimInfo("adamas", AdamW, has_betas=True))
    made = optim.create_optimizer_v2(torch.nn.Linear(2, 2), opt="adamas", lr=0.01, weight_decay=0.1, betas=[0.9, 0.95])
    assert type(made) is AdamW
    assert sorted(group["weight_decay"] for group in made.param_groups) == [0.0, 0.1]
