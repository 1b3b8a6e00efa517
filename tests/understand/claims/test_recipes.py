"""Each claim at a small size: its verdict, closed forms, and the other verdict with the contrary planted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adamas.decay import adam_l2_equilibrium_rms
from adamas.understand.claims.claim import Estimate, exact
from adamas.understand.claims.recipes import (
    alike,
    averages,
    batch,
    cautious,
    correction,
    coupling,
    defaults,
    epochs,
    equilibrium,
    formula,
    frameworks,
    generalisation,
    limits,
    moments,
    momentum,
    scale,
    sparse,
    steady,
    switching,
    timescale,
)
from adamas.understand.claims.study import ARMS, Size, Study, study
from adamas.understand.claims.training import ADAM_L2, ADAMW, NONE, Result, Run


def near(found: Estimate | float, expected: float, relative: float) -> bool:
    value = found.value if isinstance(found, Estimate) else found
    return abs(value / expected - 1) < relative


# Of each experiment: a small size, its verdict there, the swapped or planted contrary, and the verdict of that.
CASES: list[tuple[Any, dict[str, Any], str, dict[str, Any], str]] = [
    (limits, {"steps": 200}, "holds", {"beta1": 0.9}, "does_not_hold"),
    (averages, {"steps": 100}, "holds", {"betas": (0.99, 0.9)}, "does_not_hold"),
    (sparse, {"steps": 1500, "seeds": 4}, "holds", {"adaptive": False}, "conditional"),
    (momentum, {"rates": momentum._RATES[1::2]}, "holds", {"betas": (0.0, 0.9)}, "does_not_hold"),
    (correction, {"seeds": 4, "late": 20}, "holds", {"corrected": (False, True)}, "does_not_hold"),
    (coupling, {"steps": 300, "seeds": 3}, "holds", {"arms": ("lr", "l2")}, "does_not_hold"),
    (formula, {"steps": 40}, "conditional", {"decay": "l2"}, "does_not_hold"),
    (alike, {"steps": 150}, "holds", {"arms": ("l2", "lr")}, "does_not_hold"),
    (timescale, {"steps": 60}, "holds", {"rule": "l2"}, "does_not_hold"),
    (steady, {"steps": 4000, "seeds": 4}, "holds", {"arms": ("lr", "corrected")}, "does_not_hold"),
    (equilibrium, {"steps": 2000, "seeds": 3, "epochs": 1}, "conditional", {"decay": "l2"}, "does_not_hold"),
]


@pytest.mark.parametrize(
    ("recipe", "size", "verdict", "contrary", "other"), CASES, ids=lambda each: getattr(each, "__name__", "")
)
def test_the_verdict_changes_when_the_contrary_is_planted(
    recipe: Any, size: dict[str, Any], verdict: str, contrary: dict[str, Any], other: str
) -> None:
    assert recipe.judge(recipe.measure(**size)) == verdict
    assert recipe.judge(recipe.measure(**size, **contrary)) == other != verdict


def test_sparse_features_move_as_frequency_to_the_minus_half() -> None:
    """v is the frequency times the mean square of the gradient."""
    assert near(sparse.measure(steps=3000, seeds=3).figure, -0.5, 0.05)


def test_the_bias_of_the_moments_is_that_of_a_geometric_sum() -> None:
    found = correction.measure(seeds=6, late=50)
    assert near(found.m_raw, 1 - 0.9**10, 0.05)  # a mean of 256 weights, 6 seeds: noise of 4 %
    assert near(found.v_raw, 1 - 0.999**10, 0.05)
    # The first update is 1; a late one has the noise (1-b1)/(1+b1) and the mean 0.2 over the root of 1.04.
    late = math.sqrt((0.1 / 1.9 + 0.2**2) / 1.04)
    assert near(found.first_corrected, 1 / late, 0.05)


def test_decay_by_both_moments_follows_the_derivative_of_the_update() -> None:
    found = moments.measure(steps=800, seeds=3)
    assert near(found.figure, -0.5, 0.02)
    assert np.allclose(found.by_v, [1 / root for root in (0.1, 0.3, 1.0, 3.0, 10.0)], rtol=0.05)
    assert np.allclose(found.by_m, [1 - mean**2 for mean in (0.0, 0.3, 0.6, 0.8, 0.95)], rtol=0.1)
    assert moments.judge(found) == "does_not_hold"
    assert moments.judge(replace(found, v=Estimate(0.5, 0.4, 0.6))) == "holds"
    assert moments.judge(replace(found, v=Estimate(0.5, 0.4, 0.6), m=Estimate(0.1, -0.1, 0.3))) == "conditional"


def test_adamw_depends_on_neither_moment() -> None:
    found = moments.measure(steps=100, seeds=2, decay="lr")
    assert np.allclose(found.by_v + found.by_m, 1.0, rtol=1e-4)  # ln(1 - share) / share = 1 + share / 2


def test_ten_times_the_loss_weakens_l2_ten_times() -> None:
    found = coupling.measure(steps=400, seeds=3)
    assert near(found.l2, 10.0, 0.05)
    assert near(found.adamw, 1.0, 1e-6)


def test_torch_subtracts_lr_times_the_articles_term() -> None:
    found = formula.measure(steps=20)
    assert near(found.figure, 1e-3, 1e-6)
    assert found.error < 1e-9


def test_noise_settles_at_the_known_balances() -> None:
    """Under L2 the balance depends on the size of the noise, which is 3: sqrt(3) times AdamW's."""
    found = equilibrium._settle(False, 2000, 3, "lr")[0]
    assert near(float(np.mean(found)), 1.0, 0.05)
    from adamas.decay import adamw_equilibrium_rms

    ratio = adam_l2_equilibrium_rms(3e-3, 1.0, 3.0) / adamw_equilibrium_rms(3e-3, 1.0)
    under_l2 = equilibrium._settle(False, 5000, 2, "l2")[0]
    assert near(float(np.mean(under_l2)), ratio, 0.08)


def test_the_average_needs_the_claimed_timescale() -> None:
    found = timescale.measure(steps=60)
    assert found.error < 1e-12
    assert min(error for factor, error in found.errors.items() if factor != 1.0) > 1e-3


def test_the_sizes_under_a_schedule_are_the_known_ones() -> None:
    """At a tenth of the learning rate AdamW's balance is sqrt(0.1) of the first one."""
    found = steady.measure(steps=5000, seeds=2)
    assert near(found.plain, math.sqrt(0.1), 0.1)
    assert near(found.corrected, 1.0, 0.06)


def test_the_loss_times_ten_moves_one_best_decay_and_the_swap_says_so() -> None:
    swapped = scale.measure(seeds=2, epochs=12, arms=("adamw", "l2"))
    assert scale.judge(swapped) == "does_not_hold"
    found = replace(swapped, l2=swapped.adamw, adamw=swapped.l2)
    assert scale.judge(found) == "holds"
    assert near(found.l2, 1.0, 0.1)  # a loss times 10 with L2 times 10 is the same training


def test_a_range_of_learning_rates_has_an_advantage_that_the_swap_turns_round() -> None:
    found = defaults.measure(seeds=2, epochs=2)
    swapped = defaults.measure(seeds=2, epochs=2, arms=("sgd", "l2"))
    assert swapped.wider == Estimate(-found.wider.value, -found.wider.high, -found.wider.low)
    wide, narrow = Estimate(1.0, 0.5, 1.5), Estimate(-1.0, -1.5, -0.5)
    good, bad = Estimate(1.1, 1.0, 1.2), Estimate(2.0, 1.8, 2.2)
    for wider, adam, sgd, verdict in (
        (wide, good, bad, "holds"),
        (narrow, good, bad, "conditional"),
        (wide, bad, good, "conditional"),
        (narrow, bad, good, "does_not_hold"),
    ):
        assert defaults.judge(replace(found, wider=wider, adam=adam, sgd=sgd)) == verdict


def planted(adamw: float, l2: float, none: float) -> Study:
    """A study of four seeds with these mean losses."""
    arms = {"none": (NONE, none), "l2": (ADAM_L2, l2), "adamw": (ADAMW, adamw)}
    noise = (-0.002, 0.001, 0.003, -0.002)
    return Study(
        {name: Run(arm, 1e-3, 0.1, 0) for name, (arm, _) in arms.items()},
        {name: [Result(loss, loss + each, loss) for each in noise] for name, (_, loss) in arms.items()},
    )


def test_generalisation_can_come_out_either_way() -> None:
    better, worse, equal = planted(0.9, 1.0, 1.2), planted(1.1, 1.0, 1.2), planted(1.0, 1.0, 1.2)
    judge: Callable[..., str] = lambda **jobs: generalisation.judge(generalisation.compare(jobs))  # noqa: E731
    assert judge(a=better, b=better) == "holds"
    assert judge(a=better, b=equal) == "conditional"
    assert judge(a=worse, b=equal) == "does_not_hold"
    swapped = generalisation.compare({"a": better, "b": better}, arm="l2", other="adamw")
    assert generalisation.judge(swapped) == "does_not_hold"


def test_switching_can_come_out_either_way() -> None:
    assert switching.judge(switching.switch(planted(0.9, 1.0, 1.2))) == "holds"
    assert switching.judge(switching.switch(planted(1.0, 1.0, 1.2))) == "conditional"
    assert switching.judge(switching.switch(planted(1.2, 1.0, 1.2))) == "does_not_hold"
    assert switching.judge(switching.switch(planted(0.9, 1.3, 1.2), to="l2", other="adamw")) == "does_not_hold"


def test_trends_can_come_out_either_way() -> None:
    rising = epochs.trend([10.0, 100.0], [[0.0, 0.02, 0.01], [0.9, 0.93, 0.9]])
    falling = epochs.trend([10.0, 100.0], [[0.9, 0.93, 0.9], [0.0, 0.02, 0.01]])
    flat = epochs.trend([10.0, 100.0], [[0.0, 1.0], [1.0, 0.0]])
    assert near(rising.figure, 0.9, 1e-9)  # 0.90, 0.91 and 0.89 a decade
    assert (batch.judge(rising), batch.judge(falling), batch.judge(flat)) == ("holds", "does_not_hold", "conditional")
    assert epochs.judge(epochs.Epochs(falling, falling)) == "holds"
    assert epochs.judge(epochs.Epochs(rising, rising)) == "does_not_hold"
    assert epochs.judge(epochs.Epochs(falling, rising)) == "conditional"


def test_more_data_in_a_batch_is_measured_on_real_training() -> None:
    found = batch.measure(sizes=(25, 125), seeds=2, epochs=4)
    assert len(found.bests) == 2
    assert all(10**-1.5 <= best <= 10**1.5 for best in found.bests)


def test_cautious_decay_swapped_is_plain_decay() -> None:
    found, swapped = (cautious.measure(seeds=2, epochs=3, swapped=swap) for swap in (False, True))
    assert found.losses["plain"] == swapped.losses["cautious"]
    assert found.losses["cautious"] == swapped.losses["plain"]
    for change, verdict in (((-0.05, -0.08, -0.03), "holds"), ((0.05, 0.03, 0.08), "does_not_hold"),
                            ((-0.02, -0.06, 0.02), "conditional"), ((0.0, -0.01, 0.01), "does_not_hold")):  # fmt: skip
        assert cautious.judge(replace(found, figure=Estimate(*change))) == verdict


def test_a_study_chooses_on_validation_and_tests_on_fresh_seeds() -> None:
    from adamas.understand.claims.jobs import digits_job

    found = study(lambda seed: digits_job(seed, epochs=2), Size((1e-3, 3e-3), (-2, -1), (-0.5, 0.5), 2), ARMS)
    assert {run.seed for run in found.chosen.values()} == {0}
    assert all(len(results) == 2 for results in found.results.values())
    assert found.change("adamw", "adamw") == exact(0.0)


NOWHERE = frameworks.Place("Nothing", "no_such_package", "__init__.py", ("a.py", "Adam"), ("a.py", "AdamW"))
TORCH = frameworks.FRAMEWORKS[0]


def test_torch_is_read_as_it_is() -> None:
    import inspect

    import torch

    found = frameworks.measure((TORCH, NOWHERE))
    read, missing = found.frameworks
    defaults = (
        inspect.signature(kind).parameters["weight_decay"].default for kind in (torch.optim.Adam, torch.optim.AdamW)
    )
    assert (read.both, read.version, read.defaults) == (True, torch.__version__, tuple(defaults))
    assert missing.missing == "not installed"
    assert frameworks.judge(found) == "conditional"  # one framework is too few


def test_a_framework_without_adamw_changes_the_verdict() -> None:
    lacking = replace(TORCH, name="Other", adamw=("optim/adamw.py", "AdamX"))
    assert frameworks.judge(frameworks.measure((TORCH, replace(TORCH, name="Other")))) == "holds"
    assert frameworks.judge(frameworks.measure((TORCH, lacking))) == "conditional"
    assert frameworks.judge(frameworks.measure((replace(lacking, name="PyTorch"),))) == "does_not_hold"
    moved = replace(TORCH, name="Other", adam=("optim/nowhere.py", "Adam"))
    assert "cannot be read" in frameworks.measure((moved,)).frameworks[0].missing
