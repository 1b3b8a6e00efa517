"""Two implementations beside each other, at tiny sizes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from adamas.bench import peers, process
from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.harness import APART, Harness, compare
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.torch_peers import Ours, Torch, TorchForeach, TorchFused
from adamas.bench.row import Row
from adamas.bench.scenario import DTYPES, Scenario, Work
from tests.bench.conftest import BRIEF, row, tiny


def on_cpu() -> Harness:
    return Harness(Cpu(), BRIEF)


@pytest.mark.parametrize("work", ["step", "phase"])
@pytest.mark.parametrize("peer", [Torch, TorchForeach, TorchFused])
def test_torch_is_held_equal_and_measured(peer: type[Peer], work: Work) -> None:
    row = compare(tiny(work=work), peer, on_cpu())
    assert row.reason is None
    figures = row.figures
    assert figures is not None
    assert 0 < figures.lowest <= figures.ratio <= figures.highest
    assert figures.memory_ratio > 0
    for side in (figures.ours, figures.peer):
        assert side.seconds > 0
        assert side.error_ulps < APART
        assert side.state_bytes >= (8 if work == "step" else 12)  # two moments in float32, and an average
    assert row.limit == (0.5 if peer is TorchFused else None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_measured(dtype: str) -> None:
    row = compare(tiny(dtype), TorchFused, on_cpu())
    assert row.reason is None
    assert row.figures is not None
    assert row.figures.ours.state_bytes >= (16 if dtype == "float64" else 8)


class SwappedBetas(Torch):
    name = "swapped"

    def make(self, scenario: Scenario) -> object:
        return torch.optim.AdamW(self.params, **{**self.options, "betas": (0.999, 0.9)})


class DecayForgotten(Torch):
    name = "forgotten"

    def make(self, scenario: Scenario) -> object:
        return torch.optim.AdamW(self.params, **{**self.options, "weight_decay": 0.0})


class AverageFromZero(Torch):
    name = "from zero"

    def __init__(self, scenario: Scenario, params: list[torch.Tensor]) -> None:
        super().__init__(scenario, params)
        self.mean = [torch.zeros_like(param) for param in params]


class NotANumber(Torch):
    name = "nan"
    exact = False

    def step(self) -> None:
        with torch.no_grad():
            self.params[0].fill_(torch.nan)


class Unclipped(Torch):
    """Adam does not mind the scale of gradients, but it minds when each is scaled otherwise."""

    name = "unclipped"

    def phase(self) -> None:
        with torch.no_grad():
            self.mean = self.mean or [param.detach().clone() for param in self.params]
        self.optimizer.step()


@pytest.mark.parametrize(
    ("peer", "work", "what"),
    [
        (SwappedBetas, "step", "parameters"),
        (DecayForgotten, "step", "parameters"),
        (Unclipped, "phase", "parameters"),
        (AverageFromZero, "phase", "averages"),
    ],
)
def test_a_wrong_rule_gets_no_figures(peer: type[Peer], work: Work, what: str) -> None:
    row = compare(tiny(work=work), peer, on_cpu())
    assert row.figures is None
    assert row.reason is not None
    assert row.reason.startswith(f"differs: {what} are ")


def test_what_is_not_finite_gets_no_figures() -> None:
    row = compare(tiny(), NotANumber, on_cpu())
    assert row.figures is None
    assert row.reason == "differs: its parameters are not finite after 5 steps"


def test_our_own_wrong_result_gets_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "make", lambda self, scenario: torch.optim.SGD(self.params, lr=1e-3))
    row = compare(tiny(), Torch, on_cpu())
    assert row.figures is None
    assert "adamas errs by" in str(row.reason)


class Refusing(Torch):
    name = "refusing"

    def step(self) -> None:
        raise NotImplementedError("needs another device\nand more lines")


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Refusing, "refuses: NotImplementedError: needs another device"),
    ],
)
def test_a_peer_that_cannot_gives_its_reason(peer: type[Peer], reason: str) -> None:
    row = compare(tiny(), peer, on_cpu())
    assert (row.figures, row.reason) == (None, reason)


class Absent(Torch):
    name = "absent"
    modules = ("torch", "no_such_package")
    install = "no-such-package"


def test_a_peer_that_is_not_installed_gives_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "absent", Absent)
    row = process.in_own_process(tiny(), "absent", BRIEF)
    assert row.figures is None
    assert row.reason == "not installed (no_such_package): pip install no-such-package"
    assert list(row.versions) == ["torch"]


def test_a_pair_has_a_process_of_its_own() -> None:
    row = process.in_own_process(tiny(), "torch-fused", BRIEF)
    assert row.reason is None
    assert row.figures is not None
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_a_process_that_fails_gives_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tiny()
    object.__setattr__(scenario, "dtype", "int8")
    row = process.in_own_process(scenario, "torch", BRIEF)
    assert row.figures is None
    assert str(row.reason).startswith("could not be measured: ValueError: dtype='int8'")


def test_a_process_that_dies_gives_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.sys, "executable", "false")
    row = process.in_own_process(tiny(), "torch", BRIEF)
    assert row.reason == "could not be measured: its process ended with exit code 1"


def test_a_disturbed_row_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [0.5, 0.2, 0.3, 0.0]

    def disturbed(scenario: Scenario, name: str, effort: Effort) -> Row:
        figures = row().figures
        assert figures is not None
        return replace(row(), figures=replace(figures, others=shares.pop(0)))

    monkeypatch.setattr(process, "in_own_process", disturbed)
    found = process.least_disturbed(tiny(), "torch", replace(BRIEF, tries=3))
    assert found.figures is not None
    assert found.figures.others == 0.2
    assert process.least_disturbed(tiny(), "torch", BRIEF).figures == replace(found.figures, others=0.0)


def test_names_of_peers_are_those_of_the_registry() -> None:
    assert all(name == peer.name for name, peer in peers.PEERS.items())
    assert "adamas" not in peers.PEERS
    with pytest.raises(ValueError, match="unknown peer 'apex'; the known ones are: torch-fused, "):
        peers.find("apex")
