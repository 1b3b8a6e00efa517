"""The live X-ray against an oracle in float64, on real runs of all four optimizers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import adamas.torch
from adamas.torch import WeightDecaySchedule, release_gradients
from adamas.understand import XRay
from adamas.understand.xray import live
from adamas.understand.xray.figures import read
from adamas.understand.xray.sample import Sample
from tests.understand.runs import model, train

BOTH = (torch.optim.Adam, torch.optim.AdamW)
OURS = (adamas.torch.Adam, adamas.torch.AdamW)


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """The samples that the X-rays of a test take."""
    found: list[Sample] = []

    def spy(sample: Sample) -> Any:
        found.append(sample)
        return read(sample)

    monkeypatch.setattr(live, "read", spy)
    return found


class Oracle:
    """The two parts of the first moment in float64, from the gradients and weights that a loop sees."""

    def __init__(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.params = list(network.parameters())
        self.group = optimizer.param_groups[0]
        self.gradient = [np.zeros(param.numel()) for param in self.params]
        self.decay = [np.zeros(param.numel()) for param in self.params]

    def see(self, _step: int) -> None:
        beta, sign = self.group["betas"][0], -1.0 if self.group["maximize"] else 1.0
        for i, param in enumerate(self.params):
            grad = sign * param.grad.double().numpy().reshape(-1)
            theta = param.detach().double().numpy().reshape(-1)
            self.gradient[i] = beta * self.gradient[i] + (1 - beta) * grad
            self.decay[i] = beta * self.decay[i] + (1 - beta) * self.group["weight_decay"] * theta


CASES = [
    *((cls, dict(weight_decay=wd)) for cls, wd in zip((*BOTH, *OURS), (1e-2, 0.1, 1e-2, 0.1), strict=True)),
    *((cls, dict(weight_decay=1e-2, amsgrad=True)) for cls in (*BOTH, *OURS)),
    *((cls, dict(weight_decay=1e-2, maximize=True)) for cls in (*BOTH, *OURS)),
    (adamas.torch.AdamW, dict(weight_decay=1e-3, decay="independent")),
    (adamas.torch.AdamW, dict(weight_decay=0.1, decay="corrected")),
    (adamas.torch.AdamW, dict(weight_decay=0.1, cautious_decay=True)),
    (adamas.torch.Adam, dict(weight_decay=1e-2, eps=1e-3, betas=(0.85, 0.9))),
]


@pytest.mark.parametrize(("cls", "options"), CASES, ids=lambda each: getattr(each, "__module__", str(each)))
def test_gradient_part_and_decay_part_are_those_of_the_step(
    cls: Any, options: dict[str, Any], samples: list[Sample]
) -> None:
    """Both parts against the oracle, and their sum against the step, under a schedule of lr and of weight decay.

    Tolerances: the moments of 40 steps in float32 err by at most 40 roundings of 2**-24 each, 2.4e-6 of the largest
    term, and the step adds 10 more; a weight is rounded once, to half a unit in the last place.
    """
    network = model()
    optimizer = cls(network.parameters(), lr=2e-3, **options)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.2, 40)
    decay = WeightDecaySchedule(optimizer, "linear", end=options["weight_decay"] / 2, total_steps=40)
    oracle = Oracle(network, optimizer)
    wanted: list[tuple[np.ndarray, np.ndarray]] = []

    def see(step: int) -> None:
        oracle.see(step)
        if step % 10 == 9:
            wanted.append((np.concatenate(oracle.gradient), np.concatenate(oracle.decay)))

    def scheduled(_step: int) -> None:
        schedule.step()
        decay.step()

    with XRay(optimizer, network, every=10):
        train(network, optimizer, 40, see, scheduled)
    assert len(samples) == 4
    for sample, (m_gradient, m_decay) in zip(samples, wanted, strict=True):
        gradient, decayed = sample.parts()
        step = sample.before - sample.after
        rounding = 2.0**-24 * np.maximum(abs(sample.before), abs(sample.after)) + 4e-6 * abs(gradient) + 1e-9
        assert (abs(gradient + decayed - step) <= 2 * rounding).all()
        scalars = sample.layers[0].scalars
        factor = scalars.step_size / (sample.root + scalars.eps)
        size = factor * (abs(m_gradient) + abs(m_decay)) + 1e-3 * factor * abs(m_gradient).max()
        assert (abs(gradient - factor * m_gradient) <= 1e-5 * size).all()
        if scalars.l2:
            assert all(layer.exact for layer in sample.layers)
            assert (abs(decayed - factor * m_decay) <= 1e-5 * size).all()
        elif not scalars.cautious:
            assert np.allclose(decayed, scalars.decay * sample.before, rtol=1e-12)


def test_the_oracle_tells_an_average_from_the_present_weight(samples: list[Sample]) -> None:
    """A planted bug: lambda * theta in place of its average fails the tolerance above by far."""
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-2)
    oracle = Oracle(network, optimizer)
    with XRay(optimizer, network, every=10):
        train(network, optimizer, 40, oracle.see)
    wrong = 1e-2 * samples[-1].before * (1 - 0.9**40)
    right = np.concatenate(oracle.decay)
    assert np.median(abs(wrong - right) / abs(right)) > 1e-2
    assert np.median(abs(samples[-1].decay_avg - right) / abs(right)) < 1e-6


def test_at_the_default_sampling_the_decay_part_is_right_to_a_thousandth(samples: list[Sample]) -> None:
    """Every eighth of the older steps counts: against the oracle, the error in the norm is below 1e-3."""
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-2)
    oracle = Oracle(network, optimizer)
    wanted = []
    with XRay(optimizer, network):
        train(network, optimizer, 200, lambda step: (oracle.see(step), step % 100 == 99 and wanted.append(
            np.concatenate(oracle.decay))))  # fmt: skip
    for sample, right in zip(samples, wanted, strict=True):
        assert np.linalg.norm(sample.decay_avg - right) < 1e-3 * np.linalg.norm(right)


FORMATS = [
    dict(state_dtype="bfloat16"), dict(state_dtype="packed16"), dict(state_dtype="packed12"),
    dict(master_weight_bits=24), dict(master_weight_bits=32), dict(state_dtype="packed16", master_weight_bits=24),
]  # fmt: skip


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_every_state_format_is_read(options: dict[str, Any], samples: list[Sample]) -> None:
    """The sampled moments and weights are those that `moments` and `master` return."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if "master_weight_bits" in options else torch.float32
    network = torch.nn.Sequential(torch.nn.Linear(12, 96), torch.nn.Linear(96, 80), torch.nn.Linear(80, 5)).to(dtype)
    optimizer = adamas.torch.Adam(network.parameters(), lr=1e-3, weight_decay=1e-2, **options)
    xray = XRay(optimizer, network, every=6)
    train(network, optimizer, 6)
    sample, at = samples[0], 0
    for param, count in zip(network.parameters(), sample.counts.tolist(), strict=True):
        place = live.Place(param)
        first, second = optimizer.moments(param)
        here = slice(at, at + count)
        assert (sample.exp_avg[here] == place.of(first).double().numpy()).all()
        assert (sample.root[here] == np.sqrt(place.of(second).double().numpy())).all()
        assert (sample.after[here] == place.of(optimizer.master(param)).double().numpy()).all()
        at += count
    if options.get("master_weight_bits") == 32 and "state_dtype" not in options:
        gradient, decay = sample.parts()
        assert np.allclose(gradient + decay, sample.before - sample.after, rtol=1e-5, atol=2.0**-24 * 2)
    assert xray.readings[0].total.decay_part == "exact"


@pytest.mark.parametrize("cls", [*BOTH, *OURS], ids=lambda each: each.__module__)
@pytest.mark.parametrize(("every", "steps"), [(1, 8), (7, 20), (70, 71)])
def test_training_is_the_same_bit_for_bit(cls: Any, every: int, steps: int) -> None:
    results = []
    for watched in (False, True):
        network = model()
        optimizer = cls(network.parameters(), lr=1e-3, weight_decay=1e-2)
        xray = XRay(optimizer, every=every) if watched else None
        train(network, optimizer, steps)
        results.append([*network.parameters(), *(x for s in optimizer.state.values() for x in s.values())])
        assert xray is None or len(xray.readings) == steps // every
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_training_with_random_rounding_is_the_same_bit_for_bit() -> None:
    results = []
    for watched in (False, True):
        network = model().bfloat16()
        optimizer = adamas.torch.Adam(network.parameters(), lr=1e-3, weight_decay=1e-2)
        if watched:
            XRay(optimizer, every=4)
        train(network, optimizer, 12)
        results.append(list(network.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("module", [torch.optim, adamas.torch])
def test_l2_decays_by_the_size_of_gradients_and_adamw_does_not(module: Any) -> None:
    network = model()
    optimizer = module.Adam(network.parameters(), lr=1e-3, weight_decay=1e-3)
    with XRay(optimizer, network) as xray:
        train(network, optimizer, 300)
    for row in xray.readings[-1].rows:
        if row.elements > 20:
            assert row.correlation is not None
            assert row.correlation < -0.95
            assert row.rate_p90 > 1.1 * row.rate_p10
    network = model()
    optimizer = module.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    with XRay(optimizer, network) as xray:
        train(network, optimizer, 100)
    for row in xray.readings[-1].rows:
        assert row.correlation is None
        assert row.rate_p10 == row.rate_p50 == row.rate_p90 == pytest.approx(1e-4, rel=1e-12)
        assert row.equivalent == pytest.approx(0.1, rel=1e-12)


def test_the_equivalent_weight_decay_gives_adamw_the_same_mean_rate() -> None:
    """Of an L2 run, from lambda / (sqrt(v_hat) + eps); the rates of both runs come from the exact decay parts."""
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-3)
    with XRay(optimizer, network, every=20) as coupled:
        train(network, optimizer, 200)
    equivalent = float(np.mean([reading.total.equivalent for reading in coupled.readings]))
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=equivalent)
    with XRay(optimizer, network, every=20) as decoupled:
        train(network, optimizer, 200)
    rates = [np.mean([r.total.rate_p50 for r in xray.readings]) for xray in (coupled, decoupled)]
    assert rates[1] == pytest.approx(rates[0], rel=0.1)
    norms = [np.mean([r.total.rate_norm for r in xray.readings]) for xray in (coupled, decoupled)]
    assert norms[1] == pytest.approx(norms[0], rel=0.5)  # L2's mean over weights is not its median


def test_updates_lost_to_rounding_are_counted() -> None:
    network = model().bfloat16()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-3)
    before: list[torch.Tensor] = []
    with XRay(optimizer, network, every=5) as xray:
        train(network, optimizer, 5, lambda _: before.append(torch.cat([p.detach().flatten() for p in
                                                                        network.parameters()])))  # fmt: skip
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    share = float((after == before[-1]).double().mean())
    assert share > 0.2
    # Elements without a gradient, of units that are off, have no step to lose: they are few here.
    assert xray.readings[0].total.lost == pytest.approx(share, abs=0.02)


def test_rotation_and_rms_are_those_of_the_weights() -> None:
    network = model()
    optimizer = adamas.torch.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    before: list[torch.Tensor] = []
    with XRay(optimizer, network, every=3) as xray:
        train(network, optimizer, 3, lambda _: before.append(network[0].weight.detach().double().flatten().clone()))
    after = network[0].weight.detach().double().flatten()
    cosine = torch.dot(before[-1], after) / before[-1].norm() / after.norm()
    row = xray.readings[0].layers[0]
    assert row.layer == "0.weight"
    assert row.rotation == pytest.approx(float(torch.arccos(cosine)), rel=1e-6)
    assert row.rms == pytest.approx(float(after.norm()) / 288**0.5, rel=1e-6)
    assert row.decay_times_max == pytest.approx(0.1 * float(after.abs().max()), rel=1e-6)


def test_an_x_ray_that_is_attached_late_waits_until_the_average_has_forgotten() -> None:
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-2)
    train(network, optimizer, 20)
    with XRay(optimizer, network, every=30) as xray:
        train(network, optimizer, 90)
    assert [reading.total.decay_part for reading in xray.readings] == ["approximate", "approximate", "exact"]


def test_skipped_steps_do_not_pass_for_exact() -> None:
    network = model()
    optimizer = adamas.torch.Adam(network.parameters(), lr=1e-3, weight_decay=1e-2, skip_nonfinite=True)

    def spoil(step: int) -> None:
        if step == 6:
            network[0].weight.grad.fill_(torch.inf)

    with XRay(optimizer, network, every=10) as xray:
        train(network, optimizer, 10, spoil)
    assert xray.readings[0].total.decay_part == "approximate"


def test_large_layers_are_sampled_evenly() -> None:
    """The percentiles of a sample of 1,024 elements against those of all, to three standard errors of a rank."""
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(512, 256))
    optimizer = torch.optim.Adam([param], lr=1e-3, weight_decay=1e-3)
    scale = torch.rand(512, 256) + 0.1
    with XRay(optimizer, {"big": param}, every=50) as xray:
        for _ in range(50):
            param.grad = scale * torch.randn(512, 256)
            optimizer.step()
    state = optimizer.state[param]
    rates = (1e-3 * 1e-3 / ((state["exp_avg_sq"] / (1 - 0.999**50)).sqrt() + 1e-8)).numpy()
    row = xray.readings[0].layers[0]
    for value, share in ((row.rate_p10, 0.1), (row.rate_p50, 0.5), (row.rate_p90, 0.9)):
        assert abs(float((rates < value).mean()) - share) < 0.05
    assert row.elements == 512 * 256


def test_names_come_from_a_model_a_dict_the_groups_or_places() -> None:
    def names(given: Any, params: Any) -> list[str]:
        optimizer = torch.optim.AdamW(params, lr=1e-3)
        with XRay(optimizer, given, every=1) as xray:
            train(network, optimizer, 1)
        return [row.layer for row in xray.readings[0].layers]

    network = model()
    own = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert names(network, network.parameters()) == own
    assert names(dict(network.named_parameters()), network.parameters()) == own
    assert names(network.named_parameters(), network.parameters()) == own
    assert names(None, network.named_parameters()) == own
    assert names(None, network.parameters()) == [f"group 0, parameter {i}" for i in range(4)]


class Writer:
    """A stand-in for TensorBoard's writer."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], float] = {}

    def add_scalar(self, tag: str, scalar_value: Any, global_step: Any = None) -> None:
        self.found[tag, global_step] = scalar_value


def test_figures_go_to_tables_files_and_tensorboard(tmp_path: Path) -> None:
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-2)
    at_once, later = Writer(), Writer()
    names = {'<script>alert("1")</script>权重': network[0].weight}
    with XRay(optimizer, names, every=5, steps_per_epoch=8, writer=at_once) as xray:
        train(network, optimizer, 10)
    xray.write_tensorboard(later)
    assert at_once.found == later.found
    assert ("xray/all layers/rate_p50", 10) in later.found
    rows = list(csv.DictReader(xray.write_csv(tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(xray.to_dicts()) == 2 * 5
    assert float(rows[0]["rate_p50"]) == xray.to_dicts()[0]["rate_p50"]
    assert xray.to_dicts()[0]["timescale_epochs"] == xray.to_dicts()[0]["timescale"] / 8
    json.dumps(xray.to_dicts(), allow_nan=False)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(xray.table())
    assert "<script>" in console.export_text()
    for lang, word in (("en", "Does decay treat all weights alike?"), ("zh", "衰减对所有权重一视同仁吗")):
        page = xray.report(tmp_path / f"{lang}.html", lang=lang).read_text(encoding="utf-8")
        assert word in page
        assert "<script>alert" not in page
        assert "权重" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["en.html", "x.csv", "zh.html"]


def test_wrong_use_is_refused() -> None:
    network = model()
    optimizer = adamas.torch.AdamW(network.parameters(), lr=1e-3)
    for arguments in (dict(every=0), dict(every=1.5), dict(every=True), dict(steps_per_epoch=0)):
        with pytest.raises(ValueError, match="must be"):
            XRay(optimizer, **arguments)
    with pytest.raises(TypeError, match="SGD"):
        XRay(torch.optim.SGD(network.parameters()))
    with pytest.raises(ValueError, match="no sample yet"):
        XRay(optimizer).table()
    release = release_gradients(network, optimizer)
    with pytest.raises(ValueError, match="release_gradients"):
        XRay(optimizer)
    release.remove()


def test_a_detached_x_ray_leaves_no_hook() -> None:
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    with XRay(optimizer, every=1) as xray:
        train(network, optimizer, 2)
    train(network, optimizer, 2)
    assert len(xray.readings) == 2
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_long_history_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "KEPT", 8)
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    with XRay(optimizer, every=1) as xray:
        train(network, optimizer, 10)
    assert [reading.step for reading in xray.readings] == [1, 3, 5, 7, 9, 10]
