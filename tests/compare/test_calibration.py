"""How often the whole protocol is right, on simulated studies with a known truth: see benchmarks/simulated_job.py.

The counts over a thousand studies are in benchmarks/results/verdict_errors.json. Here are fewer studies, and tests of
what the counts rest on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adamas.compare.api import go_through
from adamas.compare.search.protocol import Protocol, expected_runs
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.study.arms import ARMS, DEFAULT
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Requests, Run
from adamas.compare.study.settings import Settings
from adamas.compare.verdict import statistics
from adamas.compare.verdict.result import Summary, summarise
from benchmarks.simulated_job import WORKLOAD, World, drawn, follow, study

STUDIES, FEW = 300, 20


@pytest.fixture(autouse=True)
def no_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the sign-flip p, which decides nothing and takes most of the time of a simulated study."""
    monkeypatch.setattr(statistics, "sign_flip_p", lambda values: math.nan)


def finals_only(world: World) -> Summary:
    """Return a study of finals alone, each arm at its best setting: fast enough for hundreds of studies."""
    best = [(arm, world.best_lr, world.best_decay[arm] / world.best_lr) for arm in ("adam_l2", "adamw")]
    fixed = replace(WORKLOAD, fixed=(("none", world.best_lr, 0.0), *best))
    settings = Settings(fixed, seeds=12, out=Path("unused"))
    return summarise(go_through(Protocol(settings, {}, lambda searches: follow(searches, world.outcome))))


def kinds(results: list[Summary]) -> Counter[str]:
    return Counter(result.verdict.kind for result in results)


def regret(world: World, result: Summary, arm: str) -> float:
    """Return how much worse the setting that a study chose is than the best of the arm, as a fraction."""
    winner = result.arms[arm].winner
    return world.truth(Run("final", arm, winner.lr, winner.weight_decay, 0)) / world.lowest(arm) - 1


def test_the_same_optimizer_under_two_names_is_seldom_told_apart() -> None:
    found = kinds([finals_only(World(0.05, number, none=1.0)) for number in range(STUDIES)])
    assert found["switch"] + found["keep"] <= 0.05 * STUDIES
    assert found["no_decay"] <= 0.05 * STUDIES


@pytest.mark.parametrize(("arm", "kind"), [("adamw", "switch"), ("adam_l2", "keep")])
def test_a_gap_is_found(arm: str, kind: str) -> None:
    best = {"adam_l2": 1.0, "adamw": 1.0, arm: 0.9}
    found = kinds([finals_only(World(0.05, number, best=best)) for number in range(STUDIES)])
    assert found[kind] >= 0.95 * STUDIES


def test_equal_arms_with_little_noise_are_told_equal() -> None:
    found = kinds([finals_only(World(0.01, number)) for number in range(STUDIES)])
    assert found["no_difference"] >= 0.9 * STUDIES


def test_decay_that_harms_is_told() -> None:
    """With settings from theory; a search would leave the decay off by itself."""
    found = kinds([finals_only(World(0.05, number, none=0.9)) for number in range(STUDIES)])
    assert found["no_decay"] >= 0.95 * STUDIES


@pytest.mark.parametrize(("budget", "noise"), [("scout", 0.6), ("quick", 0.02)])
def test_whole_studies_of_equal_arms_are_seldom_told_apart(budget: str, noise: float) -> None:
    """With a share of .05 wrong, more than 4 of 20 would be found in three tests of a thousand."""
    found = kinds([study(drawn(number, noise), budget) for number in range(FEW)])
    assert found["switch"] + found["keep"] <= 4


@pytest.mark.parametrize(("budget", "least"), [("scout", 14), ("quick", 16)])
def test_whole_studies_find_a_gap_and_never_turn_it_round(budget: str, least: int) -> None:
    found = kinds([study(drawn(number, 0.05, gap=0.1), budget) for number in range(FEW)])
    assert found["switch"] >= least
    assert found["keep"] == found["no_decay"] == 0


@pytest.mark.parametrize("best_lr", [1e-6, 1.0])
def test_a_job_whose_learning_rates_lie_far_off_is_judged_there(best_lr: float) -> None:
    """Without this, the arms would stop at different rates below the best, and the verdict would be about that."""
    found = study(World(0.005, best_lr=best_lr), "quick")
    for arm in found.arms.values():
        assert abs(math.log10(arm.winner.lr / best_lr)) <= 0.5


def test_an_interval_without_the_search_would_be_wrong_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals cover the difference of the arms' best settings; without the search's chance fewer would."""
    records = [study(drawn(number, 0.15), "scout", seeds=8).record for number in range(30)]

    def covered() -> int:
        found = [summarise(record).difference for record in records]
        return sum(each.low <= 0 <= each.high for each in found if each is not None)

    whole = covered()
    assert whole >= 28
    monkeypatch.setattr(statistics, "_SEARCH", 0.0)
    assert covered() < whole


def test_finals_are_fresh() -> None:
    result = study(World(0.02), "quick")
    searched = {run.seed for runs in result.record.searched.values() for run in runs}
    assert max(searched) < FIRST_FINAL_SEED


@pytest.mark.parametrize("budget", list(BUDGETS))
def test_every_arm_with_decay_spends_the_same(budget: str) -> None:
    arms = {arm: ARMS[arm] for arm in (*DEFAULT, "adamw_independent")}
    settings = Settings(WORKLOAD, arms=arms, budget=BUDGETS[budget], out=Path("unused"))
    decay = {name: 1e-6 if name == "adam_l2" else 1e-3 for name in arms}
    world = World(0.3, best=dict.fromkeys(decay, 1.0), best_decay=decay, best_lr=6e-4)
    record = go_through(Protocol(settings, {}, lambda searches: follow(searches, world.outcome)))
    spent = {arm: len(set(runs)) for arm, runs in record.searched.items()}
    assert {spent[arm] for arm in arms if arm != "none"} == {BUDGETS[budget].trials}
    pilots = sum(run.stage == "pilot" for run in record.outcomes)
    assert spent["none"] == pilots + BUDGETS[budget].trials_alone
    assert len({run.key for run in record.outcomes}) == len(record.outcomes)
    assert len(record.outcomes) <= expected_runs(settings)[1] + pilots - len(BUDGETS[budget].pilot)


@pytest.mark.parametrize("best_lr", [1e-6, 2e-3, 0.3])
def test_a_scout_never_has_more_than_forty_runs(best_lr: float) -> None:
    for noise in (0.02, 0.6):
        assert len(study(World(noise, best_lr=best_lr), "scout").record.outcomes) <= 40


def test_finals_end_where_the_verdict_is_clear() -> None:
    """A gap of a half is clear at the first or second look; figures that are the same on every seed, at the first."""
    clear = study(World(0.02, best={"adam_l2": 1.0, "adamw": 0.5}), "standard")
    assert clear.verdict.kind == "switch"
    assert clear.record.pairs <= 8
    unclear = study(World(0.6), "standard")
    assert unclear.record.pairs == 20


def test_what_an_arm_requests_depends_on_its_own_runs_alone() -> None:
    """A study can be continued, and its arms are independent: in whatever order they go, each search is the same."""
    settings = Settings(WORKLOAD, budget=BUDGETS["standard"], out=Path("unused"))
    world = World(0.02)
    orders = (list, lambda searches: searches[::-1], lambda searches: [*searches[1:], searches[0]])
    found = [
        go_through(Protocol(settings, {}, lambda searches, order=order: follow(order(searches), world.outcome)))
        for order in orders
    ]
    turns = go_through(Protocol(settings, {}, lambda searches: by_turns(searches, world.outcome)))
    for record in (*found[1:], turns):
        assert record.searched == found[0].searched
        assert record.winners == found[0].winners
        assert record.outcomes == found[0].outcomes


def by_turns(searches: list[Requests], outcome: Callable[[Run], Outcome]) -> None:
    """Go through searches in turns, one request of each at a time."""
    first = ((search, next(search, None)) for search in searches)
    requests = {search: request for search, request in first if request is not None}
    while requests:
        for search, request in list(requests.items()):
            try:
                requests[search] = search.send({run: outcome(run) for run in request.runs})
            except StopIteration:
                del requests[search]
