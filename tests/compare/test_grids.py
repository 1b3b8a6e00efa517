from __future__ import annotations

import math
from dataclasses import replace

import pytest

from adamas.compare.search.candidates import Candidates
from adamas.compare.search.grids import Grid, grids
from adamas.compare.search.pilot import Pilot, PilotError, first_runs, further, ladder, read, step_of
from adamas.compare.search.selection import FIRST_FINAL_SEED, EveryRunDivergedError, Winner, winner
from adamas.compare.study.arms import ARMS, DEFAULT, find
from adamas.compare.study.budgets import BUDGETS, Budget
from adamas.compare.study.run import Config, Outcome, Run
from adamas.decay import timescale_epochs

PILOT = Pilot(step=-6, steps_per_epoch=10, epochs=100, gradient_scale=(1e-4, 1e-3, 1e-2))
QUICK, STANDARD = BUDGETS["quick"], BUDGETS["standard"]


def outcome(value: float) -> Outcome:
    return Outcome("ok" if math.isfinite(value) else "diverged", validation={"loss": value})


DECAYING = {name: ARMS[name] for name in DEFAULT}


def layout(budget: Budget) -> dict[str, Grid]:
    return grids(DECAYING, dict.fromkeys(DECAYING, PILOT), PILOT, budget)


def test_adamw_decay_follows_the_timescale() -> None:
    found = layout(STANDARD)["adamw"]
    for lr in found.lrs:
        scales = [timescale_epochs(found.run(lr, decay).weight_decay, lr, 10) for decay in found.decays]
        assert scales == pytest.approx([1000, 200, 100 / 3, 5, 1], rel=5e-3)  # three digits are kept


def test_l2_has_its_own_range() -> None:
    adamw, l2 = layout(STANDARD)["adamw"], layout(STANDARD)["adam_l2"]
    assert l2.decays[0] == pytest.approx(adamw.decays[0] * 1e-4)
    assert l2.decays[-1] == pytest.approx(adamw.decays[-1] * 1e-2)
    ratios = [high / low for low, high in zip(l2.decays, l2.decays[1:], strict=False)]
    assert ratios == pytest.approx([l2.decay_step] * 4)
    assert l2.lrs == adamw.lrs == (3e-4, 1e-3, 3e-3, 1e-2)


@pytest.mark.parametrize("name", list(BUDGETS))
def test_no_decay_begins_with_the_pilot(name: str) -> None:
    pilot = replace(PILOT, rates=(1e-4, 1e-3, 1e-2))
    found = grids(DECAYING, dict.fromkeys(DECAYING, pilot), pilot, BUDGETS[name])["none"]
    assert (found.lrs, found.decays) == (pilot.rates, (0.0,))


def chosen_of(outcomes: dict[Run, Outcome], confirmed: tuple[Config, ...] = ()) -> Winner:
    """Return the winner among runs of AdamW, whose grid has the decays of the first and the last of them."""
    decays = sorted({run.weight_decay_paper for run in outcomes})
    rates = tuple(sorted({run.lr for run in outcomes}))
    grid = Grid("adamw", rates, (decays[0], decays[-1]))
    candidates = Candidates(grid, list(outcomes), outcomes, "loss")
    return winner(ARMS["adamw"], candidates, confirmed, list(outcomes))


def test_a_diverged_config_is_never_chosen() -> None:
    found = Grid("adamw", (1e-3, 1e-2), (1e-5, 1e-4))
    values = iter([math.inf, 3.0, 2.0, math.nan])
    outcomes = {run: outcome(next(values)) for run in found.runs()}
    chosen = chosen_of(outcomes)
    assert (chosen.lr, chosen.weight_decay) == (1e-2, 1e-3)
    with pytest.raises(EveryRunDivergedError, match="AdamW"):
        chosen_of(dict.fromkeys(found.runs(), outcome(math.inf)))


def test_only_confirmed_configs_are_chosen() -> None:
    lucky, solid = (Run("search", "adamw", 1e-3, decay, 0) for decay in (0.1, 0.2))
    runs = {lucky: 1.0, solid: 1.1}
    runs |= {replace(solid, stage="confirm", seed=seed): 1.1 for seed in (1, 2)}
    outcomes = {run: outcome(value) for run, value in runs.items()}
    assert chosen_of(outcomes, (solid.config,)).weight_decay == 0.2
    assert chosen_of({lucky: outcomes[lucky], solid: outcome(1.1)}).weight_decay == 0.1


def test_where_every_confirmed_config_lost_a_run_another_is_chosen() -> None:
    lost, sound = (Run("search", "adamw", 1e-3, decay, 0) for decay in (0.1, 0.2))
    runs = {lost: 1.0, sound: 1.1, replace(lost, stage="confirm", seed=1): math.inf}
    runs[replace(lost, stage="confirm", seed=2)] = 1.0
    outcomes = {run: outcome(value) for run, value in runs.items()}
    found = chosen_of(outcomes, (lost.config,))
    assert (found.weight_decay, found.confirmed) == (0.2, False)


def away(run: Run, best: Run) -> float:
    """Return the figure of a run where figures rise with the distance to the best run."""
    return 1.0 + math.hypot(math.log10(run.lr / best.lr), math.log10(run.weight_decay_paper / best.weight_decay_paper))


def test_edges_are_told() -> None:
    runs = Grid("adamw", (1e-3, 1e-2, 1e-1), (1e-5, 1e-4, 1e-3)).runs()

    def edge(lr: float, decay: float) -> str | None:
        outcomes = {run: outcome(0.0 if (run.lr, run.weight_decay) == (lr, decay) else 1.0) for run in runs}
        return chosen_of(outcomes).at_edge

    assert edge(1e-2, 1e-2) is None
    assert "weakest decay" in str(edge(1e-2, 1e-3))
    assert "strongest decay" in str(edge(1e-2, 1e-1))
    assert "highest learning rate" in str(edge(1e-1, 1e-3))
    assert "lowest learning rate" in str(edge(1e-3, 1e-2))


def test_rows_far_apart_have_neighbours_too() -> None:
    """The rows of a grid over two ranges of rates lie far apart; a run between two rows has both as neighbours."""
    grid = Grid("adamw", (1e-4, 1e-2, 1.0), (1e-6, 1e-5, 1e-4)).runs()
    between = Run("refine", "adamw", 1e-3, 1e-5 / 1e-3, 0)
    outcomes = {run: outcome(0.0 if run == between else 1.0) for run in [*grid, between]}
    assert chosen_of(outcomes).at_edge is None


def test_a_closer_look_between_rates_of_the_grid_is_no_edge() -> None:
    grid = Grid("adamw", (1e-3, 3e-3, 1e-2), (1e-5, 1e-4, 1e-3)).runs()
    between = [Run("refine", "adamw", 5.3e-3, decay / 5.3e-3, 0) for decay in (5e-5, 1e-4, 2e-4)]
    strongest = Run("refine", "adamw", 5.3e-3, 1.05e-3 / 5.3e-3, 0)

    def edge(best: Run, runs: list[Run]) -> str | None:
        outcomes = {run: outcome(away(run, best)) for run in runs}
        return chosen_of(outcomes).at_edge

    assert edge(between[-1], grid + between) is None
    assert "strongest decay" in str(edge(strongest, [*grid, *between, strongest]))
    rounded = Run("search", "adamw", 3e-3, 0.333, 0)  # 0.000999
    assert "strongest decay" in str(edge(rounded, [*grid, rounded]))


def test_edges_of_a_grid_of_one_rate_are_those_of_all_runs() -> None:
    """Rounds go to other rates with one or two decays each, which say nothing about the edge of the search."""
    grid = Grid("adamw", (1e-2,), (1e-6, 1e-5, 1e-4, 1e-3)).runs()
    rounds = [Run("refine", "adamw", lr, decay / lr, 0) for lr, decay in
              ((1e-3, 1e-5), (3e-3, 1e-5), (3e-3, 1e-4), (3e-2, 1e-4))]  # fmt: skip

    def edge(best: Run, runs: list[Run]) -> str | None:
        return chosen_of({run: outcome(away(run, best)) for run in runs}).at_edge

    assert edge(rounds[2], grid + rounds) is None  # the strongest decay at its own rate
    strongest = Run("refine", "adamw", 3e-3, 1e-3 / 3e-3, 0)
    assert "strongest decay" in str(edge(strongest, [*grid, *rounds, strongest]))


def test_finals_are_paired_and_fresh() -> None:
    found = Grid("adamw", (1e-3, 1e-2), (1e-5, 1e-4))
    outcomes = dict.fromkeys(found.runs(), outcome(1.0))
    finals = chosen_of(outcomes).finals(8)
    assert [run.seed for run in finals] == list(range(FIRST_FINAL_SEED, FIRST_FINAL_SEED + 8))
    assert all(
        run.seed < FIRST_FINAL_SEED for budget in BUDGETS.values() for g in layout(budget).values() for run in g.runs()
    )


def pilot_outcome(value: float, **changes: object) -> Outcome:
    good = Outcome("ok", steps=50, epochs=5, gradient_scale=(1e-4, 1e-3, 1e-2), untrained={"loss": 2.0})
    return replace(good, validation={"loss": value}, training_loss=1 / value, fit=0.5, **changes)  # type: ignore[arg-type]


def test_the_pilot_ignores_what_diverged() -> None:
    runs = first_runs(ARMS["adamw"], STANDARD)
    assert {run.arm for run in runs} == {"none"}  # one pilot serves all of Adamas' arms
    outcomes: dict[Run, Outcome] = dict.fromkeys(runs, Outcome(status="diverged"))
    with pytest.raises(PilotError, match="diverged"):
        read(ARMS["none"], outcomes, "loss")
    outcomes[runs[2]] = pilot_outcome(1.0)
    found = read(ARMS["none"], outcomes, "loss")
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    assert found == Pilot(STANDARD.pilot[2], 10, 5, (1e-4, 1e-3, 1e-2), False, learns_early=True, rates=rates)


def test_a_job_that_only_memorises_is_piloted_by_its_training_loss() -> None:
    """On this job, the learning rate that learns least has the best validation figure."""
    runs = first_runs(ARMS["none"], STANDARD)
    outcomes = {run: pilot_outcome(2.1 + number) for number, run in enumerate(runs)}
    found = read(ARMS["none"], outcomes, "loss")
    assert found.memorises
    assert found.lr == runs[-1].lr
    outcomes[runs[1]] = pilot_outcome(1.9)
    found = read(ARMS["none"], outcomes, "loss")
    assert not found.memorises
    assert found.lr == runs[1].lr


def test_rows_reach_from_one_range_of_good_rates_to_the_next() -> None:
    """The pilot does not show which range suits an arm; on `digits-deep` each arm is best in another range."""
    two = replace(PILOT, basins=(-6, -3))
    found = grids(DECAYING, dict.fromkeys(DECAYING, two), two, STANDARD)
    assert found["adamw"].lrs == found["adam_l2"].lrs == (1e-3, 4.6e-3, 2.2e-2, 1e-1)
    runs = first_runs(ARMS["none"], STANDARD)
    for values, expected in (
        ((1.8, 1.5, 1.47, 1.85, 1.84, 1.42), (-7, -3)),
        ((1.8, 1.5, 1.47, 1.46, 1.84, 1.42), (-7, -3)),
        ((2.1, 1.5, 0.87, 0.73, 0.75, 1.9), ()),
        ((1.0, 1.2, 1.3, math.inf, 1.4, 1.2), ()),  # nearly is within a tenth
        ((1.0, math.inf, 1.3, 1.4, 1.4, 1.05), (-8, -3)),
        ((2.0, math.inf, 1.0, math.inf, 1.05, 1.5), (-6, -4)),
    ):
        outcomes = dict(zip(runs, map(pilot_outcome, values), strict=True))
        outcomes |= {run: Outcome("diverged") for run, value in zip(runs, values, strict=True) if math.isinf(value)}
        assert read(ARMS["none"], outcomes, "loss").basins == expected


def test_learning_rates_of_the_ladder() -> None:
    assert all(step_of(ladder(step)) == step for step in range(-20, 20))


@pytest.mark.parametrize(
    ("best", "beyond"), [(-8, [3e-5]), (-7, []), (-6, []), (-5, [1e-2]), (None, []), (0, [])], ids=str
)
def test_a_pilot_goes_on_beyond_the_end_its_best_rate_lies_at(best: int | None, beyond: list[float]) -> None:
    runs = first_runs(ARMS["none"], QUICK)
    values = {run: 1.0 if step_of(run.lr) == best else 1.5 for run in runs}
    # With a best of 0, outside the range, all are as good as one another.
    if best is None:  # it only memorises: the training loss chose, and would choose the fastest
        values = {run: 2.1 + number for number, run in enumerate(runs)}
    outcomes = {run: pilot_outcome(value) for run, value in values.items()}
    assert [run.lr for run in further(ARMS["adamw"], outcomes, "loss")] == beyond
    if best == -5:  # the next is better still, and the one beyond diverges: it lies inside
        (next_run,) = further(ARMS["none"], outcomes, "loss")
        found = {next_run: pilot_outcome(0.9)}
        (last,) = further(ARMS["none"], outcomes | found, "loss")
        found[last] = Outcome("diverged")
        assert read(ARMS["none"], outcomes | found, "loss").lr == 1e-2
        assert further(ARMS["none"], outcomes | found, "loss") == []


def test_a_pilot_that_diverged_goes_on_below() -> None:
    lost: dict[Run, Outcome] = dict.fromkeys(first_runs(ARMS["none"], QUICK), Outcome(status="diverged"))
    (lower,) = further(ARMS["none"], lost, "loss")
    found = lost | {lower: pilot_outcome(1.0)}
    (lowest,) = further(ARMS["none"], found, "loss")
    assert (lower.lr, lowest.lr) == (3e-5, 1e-5)
    found |= {lowest: pilot_outcome(1.5)}
    assert read(ARMS["none"], found, "loss").lr == 3e-5
    assert further(ARMS["none"], found, "loss") == []


def test_a_pilot_of_another_optimizer_goes_on_in_its_own_steps() -> None:
    other = find("torch.optim:SGD")
    runs = first_runs(other, QUICK)
    outcomes = {run: pilot_outcome(1 / run.lr) for run in runs}
    outcomes |= {run: pilot_outcome(1.0) for run in first_runs(ARMS["none"], QUICK)}
    assert [run.lr for run in further(other, outcomes, "loss")] == [10.0]
    assert {run.arm for run in further(other, outcomes, "loss")} == {"torch.optim:SGD"}


@pytest.mark.parametrize(("fit", "early"), [(0.5, True), (0.95, False), (None, False)])
def test_runs_are_pruned_only_where_the_pilot_learned_early(fit: float | None, early: bool) -> None:
    runs = first_runs(ARMS["none"], STANDARD)
    outcomes = dict.fromkeys(runs, replace(pilot_outcome(1.0), fit=fit))
    assert read(ARMS["none"], outcomes, "loss").learns_early == early


def test_trials_end_where_seeds_do() -> None:
    with pytest.raises(ValueError, match=r"trials=3100 must be <= 211 with the budget quick"):
        QUICK.with_trials(3100)


@pytest.mark.parametrize("name", list(BUDGETS))
@pytest.mark.parametrize("trials", [12, 40, 100, 200])
def test_trials_may_be_chosen(name: str, trials: int) -> None:
    budget = BUDGETS[name]
    least = budget.after_grid + 3 * len(budget.lrs)
    if trials < least:
        with pytest.raises(ValueError, match=f"trials={trials} must be >= {least}"):
            budget.with_trials(trials)
        return
    found = budget.with_trials(trials)
    assert found.trials == trials
    assert found.timescales[0] == pytest.approx(10)
    assert found.timescales[-1] == pytest.approx(1 / 100)
    assert (found.base, found.lrs, found.confirmed) == (name, budget.lrs, budget.confirmed)
