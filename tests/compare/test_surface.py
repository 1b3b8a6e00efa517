"""The surface through the runs of an arm: exact without noise, calm with it, and honest about what it does not know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adamas.compare.search.candidates import Candidates
from adamas.compare.search.grids import Grid
from adamas.compare.search.surface import Scale, Surface
from adamas.compare.study.run import Config, Outcome, Run

RATES, DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-5, 1e-4, 1e-3, 1e-2)
GRID = Grid("adamw", RATES, DECAYS)


def bowl(config: Config) -> float:
    rate, decay = math.log10(config.lr / 6e-4), math.log10(config.lr * config.weight_decay / 4e-4)
    return math.exp(0.2 * rate**2 + 0.05 * decay**2)


def candidates(noise: float = 0.0, seed: int = 0, runs: list[Run] | None = None) -> Candidates:
    rng = np.random.default_rng(seed)
    values = {run: bowl(run.config) * math.exp(noise * rng.standard_normal()) for run in runs or GRID.runs()}
    outcomes = {run: Outcome("ok", validation={"loss": value}) for run, value in values.items()}
    return Candidates(GRID, list(values), outcomes, "loss")


def test_without_noise_the_surface_goes_through_the_runs_and_finds_the_place_between_them() -> None:
    found = candidates()
    low = [run for run in GRID.runs() if bowl(run.config) < 1.2]  # higher ones are cut off
    places = [(math.log10(run.lr), math.log10(run.weight_decay_paper)) for run in low]
    assert found.figures_at(places) == pytest.approx([bowl(run.config) for run in low], rel=0.02)
    between = (math.log10(6e-4), math.log10(4e-4))
    assert float(found.figures_at([between])[0]) == pytest.approx(1.0, abs=0.01)
    best = found.next(1)[0]
    assert abs(math.log10(best.lr / 6e-4)) < 0.3
    assert abs(math.log10(best.lr * best.weight_decay / 4e-4)) < 0.5


def test_with_noise_the_surface_chooses_better_than_the_luckiest_run() -> None:
    """A fifth of the figure is chance: the lowest run is mostly luck."""
    surface, luckiest = [], []
    for seed in range(40):
        found = candidates(0.2, seed)
        surface.append(bowl(found.best()[0]) - 1)
        rng = np.random.default_rng(seed)
        values = {run.config: bowl(run.config) * math.exp(0.2 * rng.standard_normal()) for run in GRID.runs()}
        luckiest.append(bowl(min(values, key=lambda config: values[config])) - 1)
    assert np.mean(surface) < 0.85 * np.mean(luckiest)


def test_the_regret_is_about_as_large_as_it_says() -> None:
    true, said = [], []
    for seed in range(40):
        found = candidates(0.1, seed)
        chosen = found.best()[0]
        regret = found.regret(chosen)
        optimum = Config(chosen.lr, 4e-4 / chosen.lr)  # of the decay, at the chosen rate: all arms share the rates
        true.append(bowl(chosen) / bowl(optimum) - 1)
        said.append(regret.mean / regret.level)
    assert 0.5 < np.mean(said) / np.mean(true) < 2


def test_more_noise_leaves_more_regret() -> None:
    def spread(noise: float) -> float:
        return float(np.mean([found.regret(found.best()[0]).of_metric(True)
                              for found in (candidates(noise, seed) for seed in range(10))]))  # fmt: skip

    assert 2 * spread(0.01) < spread(0.1) < spread(0.4)


def test_only_a_rate_that_is_better_is_a_gain() -> None:
    """A figure far worse at the rate of another arm once made an interval of five powers of ten around 4."""
    found = candidates()
    best = Config(6e-4, 4e-4 / 6e-4)
    assert found.gain_at(best, 1e-2) < 0.01
    off = Config(1e-2, 4e-4 / 1e-2)
    assert found.gain_at(off, 6e-4) == pytest.approx(bowl(off) - bowl(best), rel=0.5)
    assert found.gain_at(off, 6e-4) > 0.05


def test_equal_figures_leave_no_regret() -> None:
    outcomes = {run: Outcome("ok", validation={"loss": 1.5}) for run in GRID.runs()}
    found = Candidates(GRID, GRID.runs(), outcomes, "loss")
    regret = found.regret(found.best()[0])
    assert (regret.mean / 1.5, regret.of_metric(True)) < (0.01, 0.003)


def test_a_setting_beside_a_cliff_is_not_chosen() -> None:
    """Figures fall towards higher rates, and then runs diverge: the last good rate has bad neighbours."""
    falling = {1e-4: 1.3, 3e-4: 1.2, 1e-3: 1.1, 3e-3: 1.08, 1e-2: math.inf}
    outcomes = {
        run: Outcome("ok" if math.isfinite(falling[run.lr]) else "diverged", validation={"loss": falling[run.lr]})
        for run in GRID.runs()
    }
    found = Candidates(GRID, GRID.runs(), outcomes, "loss")
    assert found.best()[0].lr in (1e-3, 3e-3)
    assert all(config.lr == 1e-2 for config in found.without_figures)


def test_the_runs_of_a_round_differ_and_are_new() -> None:
    found = candidates(0.3)
    chosen = found.next(12)
    assert len(set(chosen)) == 12
    assert not set(chosen) & {run.config for run in GRID.runs()}


def test_a_run_without_decay_stands_for_hardly_any_decay() -> None:
    bare = [Run("pilot", "none", lr, 0.0, 0) for lr in RATES]
    outcomes = {run: Outcome("ok", validation={"loss": 1.0}) for run in bare}
    outcomes |= {run: Outcome("ok", validation={"loss": 2.0 + run.weight_decay_paper}) for run in GRID.runs()}
    found = Candidates(GRID, [*bare, *GRID.runs()], outcomes, "loss")
    chosen = found.best()[0]
    assert chosen.lr * chosen.weight_decay == pytest.approx(DECAYS[0] / 10, rel=0.01)


def test_figures_at_or_below_zero_are_not_taken_as_logarithms() -> None:
    scale = Scale([-1.0, -0.9, -0.5, 3.0, math.inf])
    assert not scale.is_log
    assert float(scale.value(scale.height(-0.9))) == pytest.approx(-0.9)
    assert scale.height(math.inf) >= scale.height(3.0) > scale.height(-0.5)


def test_what_all_runs_of_a_seed_share_is_not_taken_for_the_surface() -> None:
    """Two settings ran on a second seed on which every figure is a half higher."""
    places = np.array([[math.log10(run.lr), math.log10(run.weight_decay_paper)] for run in GRID.runs()])
    heights = [math.log(bowl(run.config)) for run in GRID.runs()]
    more, seeds = places[[6, 7]], [0] * len(places) + [1, 1]
    surface = Surface(np.vstack([places, more]), seeds, [*heights, *(heights[i] + 0.4 for i in (6, 7))], (-3.0, -3.5))
    alone = Surface(places, [0] * len(places), heights, (-3.0, -3.5))
    shift = surface.predict(places) - alone.predict(places)
    assert np.ptp(shift) < 0.02
