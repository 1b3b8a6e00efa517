from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from adamas.compare.study.run import Config, Moment, Outcome, Run
from adamas.compare.verdict.curves import (
    at_matched_loss,
    at_parts,
    best_so_far,
    crossing,
    matched_loss,
    mean_curve,
    target,
    time_to_target,
)
from adamas.compare.verdict.separability import interaction, near_best, regret, separability, tilt

RATES = [10.0**power for power in range(-2, 3)]
ALL = math.inf


def runs(
    metric: Callable[[float, float], float], per_rate: bool, rates: list[float] = RATES, columns: int = 5
) -> dict[Config, float]:
    """Return figures on a full grid of decades around 0, in (x, y) if `per_rate`, else in (x, y')."""
    found: dict[Config, float] = {}
    for rate in rates:
        for column in range(columns):
            y = column - columns // 2
            decay = 10.0**y / rate if per_rate else 10.0**y
            found[rate, decay] = metric(math.log10(rate), y)
    return found


def coordinates(found: dict[Config, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coordinates x, torch's y' and z of the figures."""
    x, y = (np.log10([point[axis] for point in found]) for axis in (0, 1))
    return x, y, np.array(list(found.values()))


def test_a_sum_of_cubics_has_no_interaction() -> None:
    x, y, z = coordinates(runs(lambda x, y: x**3 - 2 * x + y**2 - 0.3 * y**3, per_rate=False))
    assert interaction(x, y, z) == pytest.approx(0, abs=1e-24)


def test_the_interaction_of_a_product_is_its_share() -> None:
    """On a full grid around 0, x*y is orthogonal to every function of x or y alone: 25 * 2 * 2 of 50 + 100."""
    x, y, z = coordinates(runs(lambda x, y: x + x * y, per_rate=False))
    assert interaction(x, y, z) == pytest.approx(100 / (50 + 100))


def test_fewer_values_allow_fewer_powers() -> None:
    """With two learning rates, more than a slope would be one term for one config, and the rank would not be full."""
    x, y, z = coordinates(runs(lambda x, y: x + y**2, per_rate=False, rates=[1.0, 10.0]))
    assert interaction(x, y, z) == pytest.approx(0, abs=1e-24)
    three = (x[:5], y[:5], z[:5])  # a single row: a cubic through five configs
    assert interaction(*three) == pytest.approx(0, abs=1e-24)


def test_decays_that_only_rounding_tells_apart_are_one_column() -> None:
    """Three columns of lr * weight_decay, with decays rounded to three digits, allow degree 2, not 3."""
    found = runs(lambda x, y: abs(y) + x, per_rate=True, rates=[1e-3, 3e-3, 1e-2, 3e-2], columns=3)
    rounded = {(lr, float(f"{decay * (1 + 0.004 * (lr > 2e-3)):.3g}")): value for (lr, decay), value in found.items()}
    x, y, z = coordinates(rounded)
    assert interaction(x, x + y, z) == pytest.approx(0, abs=1e-4)


def test_too_few_configs_and_flat_maps_have_no_interaction() -> None:
    x, y, z = coordinates(runs(lambda x, y: x * y, per_rate=False, rates=[1.0, 10.0], columns=2))
    assert interaction(x[:3], y[:3], z[:3]) is None
    x, y, z = coordinates(runs(lambda x, y: 0.7, per_rate=False))
    assert interaction(x, y, z) is None


@pytest.mark.parametrize(("xx", "xy", "yy"), [(2.0, 0.0, 1.0), (3.0, 1.0, 2.0), (1.0, -0.5, 4.0)])
def test_the_tilt_of_a_quadratic_on_both_axes(xx: float, xy: float, yy: float) -> None:
    """The Hessian on torch's axis, y = y' + x, has the entries H11 + 2 H12 + H22, H12 + H22 and H22."""
    x, y, z = coordinates(runs(lambda x, y: 0.5 * xx * x**2 + xy * x * y + 0.5 * yy * y**2 + 5, per_rate=True))
    paper, torch = tilt(x, x + y, z, ALL)
    assert paper == pytest.approx(xy / math.sqrt(xx * yy), abs=1e-9)
    assert torch == pytest.approx((xy + yy) / math.sqrt((xx + 2 * xy + yy) * yy))


def test_the_tilt_does_not_depend_on_which_axis_it_was_fitted_on() -> None:
    """The transformed Hessian equals a fit on torch's axis, because a full quadratic is one on both axes."""
    found = runs(lambda x, y: x**2 + 0.4 * x * y + 0.3 * y**2 + 0.02 * x**3, per_rate=True)
    x, y, z = coordinates(found)
    _, transformed = tilt(x, x + y, z, ALL)
    direct, _ = tilt(x, y, z, ALL)
    assert transformed == pytest.approx(direct)


def test_no_valley_no_tilt() -> None:
    x, y, z = coordinates(runs(lambda x, y: x**2 - y**2, per_rate=True))
    assert tilt(x, x + y, z, ALL) == (None, None)
    assert tilt(x[:12], y[:12], z[:12], ALL) == (None, None)  # six of the better half for six terms
    x, y, z = coordinates(runs(lambda x, y: x**2 + y**2, per_rate=True))
    assert tilt(x, x + y, np.minimum(z, 2.5), worst=2.5) != (None, None)  # nine configs lie below
    assert tilt(x, x + y, np.minimum(z, 1.0), worst=1.0) == (None, None)  # one does


def test_regret_is_what_the_wrong_axis_costs() -> None:
    """The figures are separable in lr * weight_decay; on torch's axis a best column is a decade off, and costs 1."""
    found = runs(lambda x, y: x**2 + y**2, per_rate=True)
    assert regret(found, ALL, RATES, per_rate=True) == pytest.approx(0)
    assert regret(found, ALL, RATES, per_rate=False) == pytest.approx(1)


def test_regret_interpolates_clamps_caps_and_takes_the_worse() -> None:
    found = {
        (0.1, 1.0): 5.0,
        (0.1, 10**0.5): 4.0,
        (0.1, 10.0): 6.0,  # best between the best row's columns
        (1.0, 1.0): 1.0,
        (1.0, 10.0): 2.0,
        (10.0, 1.0): 9.0,
        (10.0, 1000.0): 8.0,  # best beyond the best row's end
    }
    rates = [0.1, 1.0, 10.0]
    assert regret(found, ALL, rates, per_rate=False) == pytest.approx(1.0)  # the end, 2, minus 1
    assert regret({**found, (10.0, 1.0): 7.0}, ALL, rates, per_rate=False) == pytest.approx(0.5)  # half-way, 1.5
    assert regret(found, 1.25, rates, per_rate=False) == pytest.approx(0.25)
    assert regret(found, ALL, [1.0], per_rate=False) is None
    assert regret(found, ALL, [1.0, 2.0, 3.0], per_rate=False) is None  # rows without configs


def test_configs_between_the_rows_are_no_neighbours() -> None:
    """A closer look half a step above the best row has runs only in columns near the best."""
    found = runs(lambda x, y: x**2 + y**2, per_rate=True)
    found |= {(3.0, 0.33): 0.4, (3.0, 0.3): 0.3}
    assert regret(found, ALL, RATES, per_rate=False) == pytest.approx(1)


def test_near_best_counts_configs_within_a_deviation() -> None:
    assert near_best([1.0, 1.1, 1.2, 2.0], sd=0.15) == 0.5
    assert near_best([1.0, 2.0], sd=math.nan) is None


def test_separability_leaves_out_what_has_no_figure_and_no_decay() -> None:
    found = runs(lambda x, y: x**2 + y**2, per_rate=True)
    whole = separability(found, ALL, 0.5, RATES)
    assert whole is not None
    assert whole.paper.interaction == pytest.approx(0, abs=1e-20)
    assert whole.torch.interaction is not None
    assert whole.torch.interaction > 0.2
    assert whole.near_best == pytest.approx(1 / 25)
    assert separability({**found, (1.0, 500.0): math.inf}, ALL, 0.5, RATES) == whole
    assert separability({(1.0, 0.0): 0.5, (0.1, 0.0): 0.6}, ALL, 0.5, RATES) is None
    few = separability({(1.0, 0.1): 0.5, (0.1, 0.1): 0.6}, ALL, math.nan, RATES)
    assert few is not None
    assert (few.paper.interaction, few.paper.tilt, few.paper.regret, few.near_best) == (None, None, None, None)


def curve(*looks: tuple[int, float, float]) -> list[Moment]:
    return [Moment(*look) for look in looks]


FALLING = curve((10, 2.0, 1.0), (20, 1.0, 0.6), (30, 0.5, 0.8))


def test_a_crossing_is_interpolated_between_looks() -> None:
    losses = [moment.training_loss for moment in FALLING]
    found = crossing(FALLING, losses, 0.75)
    assert found is not None
    assert tuple(found) == pytest.approx((25, 0.75, 0.7))
    assert crossing(FALLING, losses, 3.0) == (10, 2.0, 1.0)
    assert crossing(FALLING, losses, 0.5) == (30, 0.5, 0.8)
    assert crossing(FALLING, losses, 0.4) is None
    assert crossing([], [], 0.4) is None


def test_what_is_no_number_is_no_crossing() -> None:
    assert crossing(FALLING, [math.nan, 1.0, 0.5], 0.5) == FALLING[2]
    assert crossing(FALLING, [2.0, math.inf, 0.5], 0.6) == FALLING[2]  # nothing to interpolate from
    assert crossing(FALLING, [math.nan] * 3, 0.5) is None


def test_the_first_crossing_counts() -> None:
    """The validation figure falls below the target and rises again."""
    assert time_to_target([FALLING], 0.8).steps == pytest.approx(15)


def test_runs_that_never_arrive_are_counted_and_pull_the_median() -> None:
    late = curve((10, 2.0, 1.0), (20, 1.0, 0.9))
    found = time_to_target([FALLING, FALLING, late], 0.8)
    assert (found.steps, found.never, found.runs) == (15, 1, 3)
    assert time_to_target([FALLING, late], 0.8).steps is None
    assert time_to_target([FALLING, ()], 0.8).never == 1  # a run that diverged
    assert time_to_target([], 0.8).steps is None


def test_the_target_is_the_worse_mean_of_the_judged() -> None:
    curves = {"a": [curve((1, 0.1, 0.5)), curve((1, 0.1, 0.7))], "b": [curve((1, 0.2, 0.4)), ()]}
    assert target(curves, ("a", "b")) == pytest.approx(0.6)
    assert target({**curves, "c": [curve((1, 0.1, 9.0))]}, ("a", "b")) == pytest.approx(0.6)
    assert target({**curves, "b": [()]}, ("a", "b")) is None


def test_validation_at_matched_loss() -> None:
    worse = curve((10, 2.0, 1.0), (20, 1.2, 0.9))
    curves = {"a": [FALLING, FALLING], "b": [worse, worse], "c": [()]}
    level = matched_loss(curves)
    assert level == pytest.approx(1.2)
    first = at_matched_loss(curves["a"], 1.2)
    assert (first.mean, first.sd, first.never) == (pytest.approx(0.68), pytest.approx(0), 0)
    second = at_matched_loss([worse, FALLING], 1.0)
    assert (second.mean, second.never, second.runs) == (pytest.approx(0.6), 1, 2)
    assert math.isnan(second.sd)
    assert math.isnan(at_matched_loss([worse], 0.1).mean)
    assert matched_loss({"c": [()]}) is None


def test_a_mean_curve_goes_as_far_as_all_runs() -> None:
    longer = curve((12, 1.0, 0.0), (20, 1.0, 0.2), (30, 0.5, 0.8), (40, 0.1, 0.1))
    assert [tuple(place) for place in mean_curve([FALLING, longer])] == [
        pytest.approx((11, 1.5, 0.5)),
        pytest.approx((20, 1.0, 0.4)),
        pytest.approx((30, 0.5, 0.8)),
    ]
    assert mean_curve([]) == []


def test_best_so_far_descends_in_the_order_of_the_runs() -> None:
    figures = [None, 0.9, 1.0, 0.7, None, 0.8]
    runs = [Run("search", "adamw", 0.1, 0.01 * 2**column, 0) for column in range(len(figures))]
    outcomes = {
        run: Outcome("diverged") if value is None else Outcome("ok", validation={"loss": value})
        for run, value in zip(runs, figures, strict=True)
    }
    assert best_so_far(runs, outcomes, "loss") == [math.inf, 0.9, 0.9, 0.7, 0.7, 0.7]
    assert best_so_far(runs[::-1], outcomes, "loss") == [0.8, 0.8, 0.7, 0.7, 0.7, 0.7]


def test_best_so_far_goes_by_the_seed_that_every_config_ran_on() -> None:
    """Otherwise an arm with more seeds would look better because of the easiest seed."""
    runs = [Run("search", "none", 0.1, 0.0, seed) for seed in (1, 0, 2)]
    outcomes = {run: Outcome("ok", validation={"loss": 1.0 if run.seed == 0 else 0.1}) for run in runs}
    assert best_so_far(runs, outcomes, "loss") == [math.inf, 1.0, 1.0]


def test_parts_of_a_budget() -> None:
    assert at_parts([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == [7.0, 5.0, 1.0]
    assert at_parts([3.0]) == [3.0, 3.0, 3.0]
    assert at_parts([]) == []
