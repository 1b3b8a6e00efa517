"""How often the whole protocol is right, on simulated studies with a known truth.

Nothing is trained. The figure of a run is a bowl over learning rate and decay, plus noise that all arms share on a
seed, plus noise of the run. Selection on noisy validation, finals on fresh seeds and the verdict are the real ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from adamas.compare.search.protocol import Protocol, expected_runs
from adamas.compare.search.record import Record
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.study.arms import ARMS, DEFAULT
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Requests, Run
from adamas.compare.study.settings import Settings
from adamas.compare.study.workload import Workload
from adamas.compare.verdict import statistics
from adamas.compare.verdict.result import Summary, summarise
from tests.compare.studies import follow

STUDIES, SEEDS = 1000, 12
BEST_LR, BEST_DECAY = 2e-3, {"adamw": 3e-4, "adam_l2": 3e-7}  # lr * weight_decay
WORKLOAD = Workload("simulated", "nowhere:job", "loss", "Drawn at random.")


@dataclass(frozen=True)
class World:
    """The truth of simulated studies, and their noise.

    Attributes:
        level: The mean figure of each arm at its best config.
        sd: The standard deviation of a paired difference of two arms.
        study: The number of the study, which seeds its noise.
        best_lr: The best learning rate of every arm.
    """

    level: dict[str, float]
    sd: float
    study: int = 0
    best_lr: float = BEST_LR
    shared: ClassVar[float] = 0.1  # of a seed, the same in every arm
    gradient_scale: ClassVar[tuple[float, float, float]] = (1e-4, 1e-3, 1e-2)

    def outcome(self, run: Run) -> Outcome:
        """Return the outcome of a run: the bowl, the noise of the seed, and the noise of the run."""
        point = np.array([run.lr, run.weight_decay]).view("u4").tolist()
        words = [self.study, run.seed, list(ARMS).index(run.arm), *point]
        own, again = np.random.default_rng(words).normal(0, self.sd / math.sqrt(2), 2)
        common = np.random.default_rng([self.study, run.seed]).normal(0, self.shared)
        level = self.level[run.arm] + self.bowl(run) + common
        return Outcome(
            status="ok",
            validation={"loss": level + own},
            test={"loss": level + again} if run.stage == "final" else None,
            total_decay=1.0,
            steps=1000,
            epochs=10,
            gradient_scale=self.gradient_scale,
        )

    def bowl(self, run: Run) -> float:
        """Return how much worse the config of a run is than the best config of its arm."""
        cost = 0.05 * math.log10(run.lr / self.best_lr) ** 2
        if run.weight_decay:
            cost += 0.05 * math.log10(run.weight_decay_paper / BEST_DECAY[run.arm]) ** 2
        return cost

    def regret(self, result: Summary, arm: str) -> float:
        """Return how much worse the config that a study chose is than the best config of the arm."""
        winner = result.arms[arm].winner
        return self.bowl(Run("final", arm, winner.lr, winner.weight_decay, 0))

    def follow(self, searches: list[Requests]) -> None:
        """Go through searches with the simulated outcomes."""
        follow(searches, self.outcome)


def study(world: World, number: int) -> Summary:
    settings = Settings(WORKLOAD, budget=BUDGETS["quick"], seeds=SEEDS, out=Path("unused"))
    return summarise(Protocol(settings, {}, replace(world, study=number).follow).go_through())


def finals_only(world: World, number: int) -> Summary:
    """Return a study of finals alone, with given winners: fast enough for a thousand studies."""
    settings = Settings(WORKLOAD, seeds=SEEDS, out=Path("unused"))
    fixed = replace(settings, workload=replace(WORKLOAD, fixed=tuple((arm, 1e-3, 0.0) for arm in DEFAULT)))
    return summarise(Protocol(fixed, {}, replace(world, study=number).follow).go_through())


def verdicts(world: World) -> Counter[str]:
    return Counter(finals_only(world, number).verdict.kind for number in range(STUDIES))


EQUAL = dict.fromkeys(DEFAULT, 1.0)


@pytest.fixture(autouse=True)
def no_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the sign-flip p, which decides nothing and takes nine tenths of the time of a simulated study."""
    monkeypatch.setattr(statistics, "sign_flip_p", lambda values: math.nan)


def test_the_same_optimizer_under_two_names_is_seldom_told_apart() -> None:
    found = verdicts(World(EQUAL, sd=0.05))
    assert sum(found.values()) == STUDIES
    assert found["switch"] + found["keep"] <= 0.05 * STUDIES
    assert found["no_decay"] <= 0.05 * STUDIES


@pytest.mark.parametrize(("arm", "kind"), [("adamw", "switch"), ("adam_l2", "keep")])
def test_a_planted_gap_is_found(arm: str, kind: str) -> None:
    found = verdicts(World({**EQUAL, arm: 0.9}, sd=0.05))
    assert found[kind] >= 0.95 * STUDIES


def test_equal_arms_with_little_noise_are_told_equal() -> None:
    found = verdicts(World(EQUAL, sd=0.01))
    assert found["no_difference"] >= 0.9 * STUDIES


def test_decay_that_harms_is_told() -> None:
    found = verdicts(World({**EQUAL, "none": 0.9}, sd=0.05))
    assert found["no_decay"] >= 0.95 * STUDIES


@pytest.mark.parametrize(("gap", "kinds"), [(0.0, {"no_difference", "undecided"}), (0.1, {"switch"})])
def test_selection_leaves_the_verdict_unbiased(gap: float, kinds: set[str]) -> None:
    """In fifty whole studies with noisy validation, a config that was chosen by luck must not win by it."""
    world = World({**EQUAL, "adamw": 1.0 - gap}, sd=0.02)
    found = [study(world, number) for number in range(50)]
    assert sum(result.verdict.kind in kinds for result in found) >= 47
    regrets = {arm: [world.regret(result, arm) for result in found] for arm in DEFAULT}
    assert max(map(np.mean, regrets.values())) < 0.01
    means = [result.difference.mean for result in found if result.difference]
    luck = np.mean(means) - np.mean(regrets["adamw"]) + np.mean(regrets["adam_l2"])
    # Each mean has a standard error of .02 / sqrt(12) = .006; of fifty, .0008. The allowance is four of these.
    assert luck == pytest.approx(-gap, abs=4 * 0.02 / math.sqrt(SEEDS * 50) + 0.01 * gap)


@pytest.mark.parametrize("best_lr", [1e-6, 1.0])
def test_a_job_whose_learning_rates_lie_far_off_is_judged_there(best_lr: float) -> None:
    """Without this, the arms would stop at different rates below the best, and the verdict would be about that."""
    found = study(World(EQUAL, sd=0.005, best_lr=best_lr), 0)
    for arm in found.arms.values():
        assert abs(math.log10(arm.winner.lr / best_lr)) <= 0.5
        assert arm.winner.at_edge is None
    assert len(found.record.outcomes) == expected_runs(found.record.settings)[1] + 6


def test_a_biased_selection_would_be_noticed() -> None:
    """If the winner were tested on the runs that chose it, its luck would count as merit."""

    def lucky(result: Summary) -> float:
        record: Record = result.record
        return min(record.outcomes[run].validation["loss"] for run in record.searched["adamw"]) - 1.0

    found = [lucky(study(World(EQUAL, sd=0.02), number)) for number in range(20)]
    assert abs(np.mean(found)) > 4 * 0.02 / math.sqrt(SEEDS * 50)


def test_finals_are_fresh() -> None:
    result = study(World(EQUAL, sd=0.02), 0)
    searched = {run.seed for runs in result.record.searched.values() for run in runs}
    assert max(searched) < FIRST_FINAL_SEED


def test_every_arm_spends_the_same() -> None:
    for name, budget in BUDGETS.items():
        for arms in (DEFAULT, (*DEFAULT, "adamw_independent")):
            chosen = {arm: ARMS[arm] for arm in arms}
            settings = Settings(WORKLOAD, arms=chosen, budget=budget, seeds=SEEDS, out=Path("unused"))
            world = World(dict.fromkeys(ARMS, 1.0), sd=0.02)
            BEST_DECAY.setdefault("adamw_independent", BEST_DECAY["adamw"])
            record = Protocol(settings, {}, world.follow).go_through()
            assert {arm: len(set(runs)) for arm, runs in record.searched.items()} == dict.fromkeys(
                arms, budget.trials
            ), name
            assert len(record.outcomes) == expected_runs(settings)[1]
            assert len({run.key for run in record.outcomes}) == expected_runs(settings)[1]


def test_what_an_arm_requests_depends_on_its_own_runs_alone() -> None:
    """A study can be continued, and its arms are independent: in whatever order they go, each search is the same."""
    settings = Settings(WORKLOAD, budget=BUDGETS["standard"], seeds=SEEDS, out=Path("unused"))
    world = World(EQUAL, sd=0.02)
    orders = (list, lambda searches: searches[::-1], lambda searches: [*searches[1:], searches[0]])
    found = [
        Protocol(settings, {}, lambda searches, order=order: world.follow(order(searches))).go_through()
        for order in orders
    ]
    turns = Protocol(settings, {}, lambda searches: by_turns(searches, world.outcome)).go_through()
    for record in (*found[1:], turns):
        assert record.searched == found[0].searched
        assert record.winners == found[0].winners
        assert record.outcomes == found[0].outcomes


def by_turns(searches: list[Requests], outcome: Callable[[Run], Outcome]) -> None:
    """Go through searches in turns, one request of each at a time."""
    requests = {search: next(search) for search in searches}
    while requests:
        for search, request in list(requests.items()):
            try:
                requests[search] = search.send({run: outcome(run) for run in request.runs})
            except StopIteration:
                del requests[search]
