"""What the experiments stand on: training many runs at once, sweeps, intervals, decay of twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from adamas.understand.claims.claim import Estimate, direction, estimate, improvement
from adamas.understand.claims.jobs import deep_job, digits_job, transformer_job
from adamas.understand.claims.sweep import best, grid
from adamas.understand.claims.training import ADAM_L2, ADAMW, SGD, Run, train
from adamas.understand.claims.twins import decay_rates, with_decay


def alone(run: Run, kind: type[torch.optim.Optimizer], **options: float) -> float:
    """The validation loss of torch's own optimizer in a plain loop."""
    job = digits_job(run.seed, epochs=3)
    optimizer = kind(job.model.parameters(), lr=run.lr, weight_decay=run.weight_decay, **options)  # type: ignore[call-arg]
    step = 0
    for epoch in range(job.epochs):
        for images, labels in job.batches(epoch):
            optimizer.param_groups[0]["lr"] = run.lr * 0.5 * (1 + math.cos(math.pi * step / job.steps))
            optimizer.zero_grad()
            cross_entropy(job.model(images), labels).backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        return job.evaluate("validation")["cross_entropy"]


def test_runs_trained_together_are_those_trained_alone() -> None:
    """Several arms, settings and seeds in one stack; float32 rounding grows over 30 steps to some 1e-6."""
    runs = [Run(arm, 3e-3, decay, seed) for arm in (ADAMW, ADAM_L2, SGD) for decay in (0.0, 0.1) for seed in (1, 2)]
    found = train(lambda seed: digits_job(seed, epochs=3), runs)
    for run, result in found.items():
        kind = {"adamw": torch.optim.AdamW, "l2": torch.optim.Adam, "sgd": torch.optim.SGD}[run.arm.kind]
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        assert result.validation == pytest.approx(alone(run, kind, **options), rel=1e-4)


def test_a_factor_of_the_loss_and_l2_cancel() -> None:
    """Ten times the loss with ten times the L2 is the same training, but for epsilon."""
    plain = train(lambda seed: deep_job(seed, epochs=3), [Run(ADAM_L2, 3e-3, 0.01, 0)])
    scaled = train(lambda seed: deep_job(seed, epochs=3, factor=10.0), [Run(ADAM_L2, 3e-3, 0.1, 0)])
    (first,), (second,) = plain.values(), scaled.values()
    assert second.validation == pytest.approx(first.validation, rel=1e-3)
    assert second.training == pytest.approx(10 * first.training, rel=1e-3)


def test_the_transformer_reads_no_character_that_comes_later() -> None:
    model = transformer_job(0).model
    text = torch.randint(20, (1, 16), generator=torch.Generator().manual_seed(0))
    other = text.clone()
    other[0, 10:] = (other[0, 10:] + 1) % 20
    with torch.no_grad():
        assert torch.equal(model(text)[0, :10], model(other)[0, :10])
        assert not torch.equal(model(text)[0, 10:], model(other)[0, 10:])


def test_a_run_that_diverges_has_an_infinite_loss_and_disturbs_no_other() -> None:
    wild, calm = Run(SGD, 1e30, 0.0, 0), Run(SGD, 1e-2, 0.0, 0)
    together = train(lambda seed: digits_job(seed, epochs=1), [wild, calm])
    assert together[wild].validation == math.inf
    assert math.isfinite(together[calm].validation)


def test_the_best_decay_is_the_lowest_point_of_the_parabola() -> None:
    decays = grid(-2, 2)
    values = [(math.log10(decay) - 0.3) ** 2 + 5 for decay in decays]
    assert best(decays, values) == pytest.approx(0.3)
    assert best(decays, [math.inf, *values[1:]]) == pytest.approx(0.3)
    assert best(decays, sorted(values)) == -2
    assert best(decays, sorted(values, reverse=True)) == 2


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).standard_normal(7)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = estimate(values.tolist())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [((-0.03, -0.04, -0.02), "holds"), ((-0.01, -0.015, -0.005), "does_not_hold"), ((0.1, 0.0, 0.2), "does_not_hold"),
     ((-0.03, -0.07, 0.01), "conditional"), ((-0.015, -0.025, -0.005), "conditional")],
)  # fmt: skip
def test_an_improvement_must_matter(change: tuple[float, float, float], verdict: str) -> None:
    assert improvement(Estimate(*change), 0.02) == verdict


def test_a_direction_has_two_signs() -> None:
    assert [direction(Estimate(0.5, low, 1.0), sign=1) for low in (0.1, -0.1)] == ["holds", "conditional"]
    assert direction(Estimate(0.5, 0.1, 1.0), sign=-1) == "does_not_hold"


def test_twins_find_the_decay_that_was_given() -> None:
    """AdamW: the distance shrinks by 1 - lr wd in every step, whatever the gradients are."""
    hyper = with_decay("lr", lr=1e-2, weight_decay=0.5)
    rates = decay_rates(hyper, lambda t: np.full(3, 1e6 * (-1.0) ** t), steps=50)
    assert np.allclose(rates, -math.log1p(-5e-3) / 5e-3, rtol=1e-6)
