"""The expected results of the workloads are compared with simulated studies that agree or disagree with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from adamas.compare import expectations
from adamas.compare.api import go_through
from adamas.compare.search.protocol import Protocol
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings
from adamas.compare.verdict.result import Summary, summarise
from adamas.compare.workloads import WORKLOADS, noise
from adamas.decay import adam_l2_equilibrium_rms, adamw_equilibrium_rms
from benchmarks.simulated_job import follow

Figures = Callable[[Run], dict[str, float]]


def study(name: str, figures: Figures) -> Summary:
    def outcome(run: Run) -> Outcome:
        return Outcome(
            "ok",
            validation=figures(run),
            test=figures(run) if run.stage == "final" else None,
            total_decay=1.0,
            steps=1000,
            epochs=10,
            gradient_scale=(1e-4, 1e-3, 1e-2),
        )

    workload = WORKLOADS[name]
    margin = Margin.parse(workload.margin)
    settings = Settings(workload, budget=BUDGETS["quick"], seeds=4, margin=margin, out=Path("unused"))
    return summarise(go_through(Protocol(settings, {}, lambda searches: follow(searches, outcome))))


def jitter(run: Run) -> float:
    return 1e-4 * math.sin(run.seed)


def holds(result: Summary) -> list[bool | None]:
    return [finding.holds for finding in result.findings]


@pytest.mark.parametrize(
    ("name", "adamw", "expected"),
    [("digits", 1.0, True), ("digits", 0.8, False), ("sparse", 0.8, True), ("sparse", 1.2, False)],
)
def test_ties_and_wins(name: str, adamw: float, expected: bool) -> None:
    levels = {"none": max(1.0, adamw), "adam_l2": 1.0, "adamw": adamw}  # no tuned arm is worse than none
    result = study(name, lambda run: {"cross_entropy": levels[run.arm] + jitter(run)})
    assert holds(result) == [expected]


def test_an_undecided_study_tells_nothing() -> None:
    result = study("digits", lambda run: {"cross_entropy": 1.0 + (run.arm == "adamw") * 0.5 * (-1) ** run.seed})
    assert result.verdict.kind == "undecided"
    assert holds(result) == [None]


def test_decay_that_helps() -> None:
    def figures(run: Run) -> dict[str, float]:
        return {"cross_entropy": 1.0 + jitter(run) - (0.3 if run.arm == "adamw" and run.weight_decay > 0.5 else 0.0)}

    helped = study("chars", figures)
    assert holds(helped) == [True, True]
    assert helped.findings[0].measured == "Its test cross-entropy is 30.00% below that without decay."
    assert not holds(study("chars", lambda run: {"cross_entropy": 1.0 + jitter(run)}))[0]


@pytest.mark.parametrize(("power", "expected"), [(1.0, True), (0.0, False), (0.5, False)])
def test_a_louder_loss_moves_the_best_l2(power: float, expected: bool) -> None:
    factors = {"": 1.0, "loss x10": 10.0, "loss x100": 100.0}

    def figures(run: Run) -> dict[str, float]:
        best = 1e-3 * factors[run.variant] ** power if run.arm == "adam_l2" else 1.0
        off = math.log10(run.weight_decay / best) if run.weight_decay else 3.0
        return {"cross_entropy": 1.0 + 0.1 * off**2 + jitter(run)}

    result = study("digits-deep", figures)
    titles = [finding.expected for finding in result.findings[1:]]
    assert [("AdamW" in title, "stays" in title) for title in titles] == [(True, True), (False, False)] * 2
    assert holds(result)[1:] == [True, expected, True, expected]


def test_a_sweep_that_ends_too_early_tells_nothing() -> None:
    def figures(run: Run) -> dict[str, float]:
        best = 1e9 if run.variant == "loss x100" else 1.0
        return {"cross_entropy": 1.0 + abs(math.log10((run.weight_decay or 1e-9) / best)) + jitter(run)}

    assert holds(study("digits-deep", figures))[3:] == [None, None]


def grokking(windows: dict[str, tuple[float, float]]) -> Summary:
    def figures(run: Run) -> dict[str, float]:
        low, high = windows[run.arm]
        learns = low <= run.weight_decay <= high
        return {"cross_entropy": 0.01 if learns else 5.0 + jitter(run), "accuracy": 0.999 if learns else 0.05}

    return study("modular", figures)


def test_windows_a_thousand_apart() -> None:
    result = grokking({"none": (1.0, 1.0), "adamw": (0.05, 5.0), "adam_l2": (5e-5, 5e-3)})
    assert holds(result) == [True, True, True, True]
    text = result.findings[-1].measured
    assert "AdamW: weight_decay" in text
    assert "Adam with L2: weight_decay" in text
    assert "lr × weight_decay" in text


def test_a_window_that_is_nowhere() -> None:
    result = grokking({"none": (0.0, 0.0), "adamw": (0.05, 5.0), "adam_l2": (1e9, 1e9)})
    assert holds(result) == [False, False, True, None]
    assert "Adam with L2: with none of the settings tried." in result.findings[-1].measured


@pytest.mark.parametrize(("factor", "expected"), [(0.98, True), (1.06, False)])
def test_sizes_within_five_per_cent(factor: float, expected: bool) -> None:
    def figures(run: Run) -> dict[str, float]:
        sizes = {
            "adamw": [factor * adamw_equilibrium_rms(noise.LR, noise.WEIGHT_DECAY)] * 3,
            "adam_l2": [adam_l2_equilibrium_rms(noise.LR, noise.WEIGHT_DECAY, scale) for scale in noise.SCALES],
            "none": [1.0] * 3,
        }[run.arm]
        named = {f"rms_{scale:g}": size for scale, size in zip(noise.SCALES, sizes, strict=True)}
        return {"spread": math.log10(max(sizes) / min(sizes)) + jitter(run), **named}

    result = study("noise", figures)
    assert holds(result) == [expected, True]
    assert result.verdict.kind == "switch"
    assert result.record.pilot is None
    assert all(arm.trials == 0 for arm in result.arms.values())


def test_every_workload_has_its_expectation() -> None:
    for workload in WORKLOADS.values():
        assert callable(getattr(expectations, workload.findings.partition(":")[2]))
