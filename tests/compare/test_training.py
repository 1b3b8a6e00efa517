from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

import adamas.torch
from adamas.compare.job.job import Job, cosine
from adamas.compare.runner import history, training
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.run import Outcome, Run
from adamas.compare.workloads import digits, find
from tests.compare.tiny_job import job

SEARCH = Run("search", "adamw", 1e-2, 0.1, 0)


def train(factory, device: str, arm: Arm, run: Run) -> Outcome:  # type: ignore[no-untyped-def]
    (outcome,) = training.train_task(factory, device, {run.arm: arm}, Task((run,), "loss"))
    return outcome


def train_made(made: Job, arm: Arm, run: Run) -> Outcome:
    (outcome,) = training.train({run.seed: made}, {run.arm: arm}, Task((run,), "loss"))
    return outcome


def figures(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=0.0)


def test_arms_train_with_our_optimizers() -> None:
    params = [torch.nn.Parameter(torch.zeros(3))]
    kinds = {name: type(arm.build(params, 1e-3, 0.0)) for name, arm in ARMS.items()}
    ours = {"none": adamas.torch.Adam, "adam_l2": adamas.torch.Adam, "adamw": adamas.torch.AdamW}
    variants = ("independent", "corrected", "cautious", "scheduled")
    assert kinds == {**ours, **{f"adamw_{name}": adamas.torch.AdamW for name in variants}}
    assert ARMS["adamw"].build(params, 1e-3, 0.0).param_groups[0]["weight_decay"] == 0.0


def test_the_seed_fixes_everything() -> None:
    first, again = train(job, "cpu", ARMS["adamw"], SEARCH), train(job, "cpu", ARMS["adamw"], SEARCH)
    assert figures(first) == figures(again)
    assert figures(train(job, "cpu", ARMS["adamw"], replace(SEARCH, seed=1))) != figures(first)


def test_the_callers_random_stream_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(job, "cpu", ARMS["adamw"], SEARCH)
    assert torch.equal(torch.rand(2), expected)


def test_only_finalists_see_the_test_set() -> None:
    splits: list[str] = []

    def watched(seed: int, device: str) -> Job:
        made = job(seed, device)
        return replace(made, evaluate=lambda split: (splits.append(split), made.evaluate(split))[1])

    for stage in ("pilot", "search", "refine", "confirm"):
        assert train(watched, "cpu", ARMS["adamw"], replace(SEARCH, stage=stage)).test is None
    assert set(splits) == {"validation"}
    assert train(watched, "cpu", ARMS["adamw"], replace(SEARCH, stage="final")).test is not None
    assert splits[-1] == "test"


def test_total_decay_sums_the_schedule() -> None:
    expected = sum(1e-2 * 0.1 * cosine(step / 20) for step in range(20))
    assert train(job, "cpu", ARMS["adamw"], SEARCH).total_decay == pytest.approx(expected, rel=1e-12)


def test_the_schedule_reaches_every_group_and_scales_its_own_rate() -> None:
    made = job(0, "cpu")
    seen: list[list[float]] = []
    groups = [{"params": [made.model.weight]}, {"params": [made.model.bias], "lr": 0.5, "weight_decay": 0.0}]
    arm = ARMS["adamw"]

    class Watched(type(arm)):
        def build(self, params, lr, weight_decay):  # type: ignore[no-untyped-def]
            optimizer = super().build(params, lr, weight_decay)
            optimizer.register_step_pre_hook(lambda o, *_: seen.append([group["lr"] for group in o.param_groups]))
            return optimizer

    train_made(replace(made, parameter_groups=groups), Watched(**vars(arm)), SEARCH)
    assert seen == [pytest.approx([1e-2 * cosine(step / 20), 0.5 * cosine(step / 20)]) for step in range(20)]


def test_the_pilot_measures_the_gradients() -> None:
    outcome = train(job, "cpu", ARMS["none"], Run("pilot", "none", 1e-2, 0.0, 0))
    assert outcome.gradient_scale is not None
    low, middle, high = outcome.gradient_scale
    assert 0 < low <= middle <= high
    # A loss 1,000 times larger has 1,000 times larger gradients, and Adam (eps aside) takes the same steps.
    louder = train_made(
        replace(loud := job(0, "cpu"), loss=lambda batch: 1000 * loud.loss(batch)),
        ARMS["none"],
        Run("pilot", "none", 1e-2, 0.0, 0),
    )
    assert louder.gradient_scale == pytest.approx([1000 * value for value in outcome.gradient_scale], rel=0.02)


def test_divergence_is_an_outcome_not_an_error() -> None:
    made = job(0, "cpu")
    outcome = train_made(replace(made, loss=lambda batch: made.loss(batch) * math.inf), ARMS["adamw"], SEARCH)
    assert (outcome.status, outcome.validation) == ("diverged", {})
    assert outcome.message == "the training loss became inf at step 1"
    outcome = train_made(replace(made, evaluate=lambda split: {"loss": math.nan}), ARMS["adamw"], SEARCH)
    assert (outcome.status, outcome.message) == ("failed", "evaluate('validation') returned loss=nan")
    assert train_made(made, ARMS["adamw"], SEARCH).message == ""


def test_the_step_of_a_divergence_is_told() -> None:
    made, count = job(0, "cpu"), iter(range(20))
    outcome = train_made(
        replace(made, loss=lambda batch: made.loss(batch) * (math.nan if next(count) == 6 else 1)),
        ARMS["adamw"],
        SEARCH,
    )
    assert (outcome.status, outcome.message) == ("diverged", "the training loss became nan at step 7")


def test_a_test_figure_that_is_nan_alone_is_told_as_that() -> None:
    made = job(0, "cpu")
    spoilt = replace(made, evaluate=lambda split: {"loss": 1.0, "top1": math.nan if split == "test" else 0.5})
    (outcome,) = training.train({0: spoilt}, ARMS, Task((replace(SEARCH, stage="final"),), "-top1"))
    assert outcome.status == "failed"
    assert outcome.message == "evaluate('test') returned top1=nan, while every validation figure was finite"


def test_the_negative_of_a_figure_is_among_all_figures_of_a_run() -> None:
    made = job(0, "cpu")
    counted = replace(made, evaluate=lambda split: {"top1": 0.25 if split == "validation" else 0.5})
    (pilot,) = training.train({0: counted}, ARMS, Task((Run("pilot", "none", 1e-2, 0.0, 0),), "-top1"))
    (final,) = training.train({0: counted}, ARMS, Task((replace(SEARCH, stage="final"),), "-top1"))
    assert pilot.untrained == pilot.validation == {"top1": 0.25, "-top1": -0.25}
    assert final.test == {"top1": 0.5, "-top1": -0.5}
    assert {moment.validation for moment in final.curve} == {-0.25}


@pytest.mark.parametrize("promised", [4, 6])
def test_a_wrong_number_of_batches_is_refused(promised: int) -> None:
    with pytest.raises(ValueError, match=f"steps_per_epoch={promised} must be"):
        train_made(replace(job(0, "cpu"), steps_per_epoch=promised), ARMS["adamw"], SEARCH)


def test_outcomes_survive_json() -> None:
    outcome = train(job, "cpu", ARMS["none"], Run("pilot", "none", 1e-2, 0.0, 0))
    assert Outcome.from_json({**outcome.to_json(), "gradient_scale": list(outcome.gradient_scale or ())}) == outcome


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_the_primary_metric_is_an_error_of_the_job(split: str) -> None:
    made = find("digits").load()

    def other(seed: int, device: str) -> Job:
        whole = made(seed, device)
        return replace(whole, epochs=1, evaluate=lambda part: {"mse": 1.0} if part == split else whole.evaluate(part))

    with pytest.raises(ValueError, match=rf"evaluate\('{split}'\) returned mse, but not 'cross_entropy'"):
        training.train_task(other, "cpu", ARMS, Task((Run("final", "adamw", 1e-3, 0.1, 1000),), "cross_entropy"))


def test_digits_splits_are_disjoint_and_complete() -> None:
    rows = digits.data().rows
    assert {name: len(part) for name, part in rows.items()} == {"train": 500, "validation": 500, "test": 797}
    assert sorted(row for part in rows.values() for row in part) == list(range(1797))


def test_digits_labels_are_noisy_everywhere_alike() -> None:
    data = digits.data()
    for part in (data.train, data.validation, data.test):
        wrong = (part.labels != part.classes).float().mean().item()
        assert 0.14 < wrong < 0.22  # a fifth shuffled, a tenth of these onto their own class
        assert part.images.min() == 0
        assert part.images.max() == 1


def test_digits_is_fixed_by_its_seed() -> None:
    factory = find("digits").load()

    def start(seed: int) -> tuple[float, list[int]]:
        made = factory(seed, "cpu")
        first = next(iter(made.batches(0)))
        return made.loss(first).item(), first[1].tolist()

    assert start(0) == start(0)
    assert start(0) != start(1)


def test_digits_batches_cover_an_epoch_in_a_new_order() -> None:
    made = find("digits").load()(0, "cpu")
    epochs = [torch.cat([images for images, _ in made.batches(epoch)]) for epoch in (0, 1)]
    assert not torch.equal(*epochs)
    assert torch.equal(*(epoch.sum(1).sort().values for epoch in epochs))


def test_an_unknown_workload_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown workload 'digit'.*digits"):
        find("digit")


def on_digits(epochs: int, may_prune: bool, *runs: Run) -> list[Outcome]:
    made = find("digits").load()
    task = Task(runs, "cross_entropy", may_prune)
    return training.train_task(lambda seed, device: replace(made(seed, device), epochs=epochs), "cpu", ARMS, task)


CRUSHED, SOUND = Run("search", "adam_l2", 3e-3, 1.0, 0), Run("search", "adamw", 1e-3, 0.1, 0)


@pytest.fixture
def no_run_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short runs be pruned too: long ones take too long for a test."""
    monkeypatch.setattr(history, "SHORT", 40)


def test_a_short_run_is_never_pruned() -> None:
    (crushed,) = on_digits(4, True, CRUSHED)
    assert crushed.ok
    assert crushed.fit is not None
    assert crushed.fit > 0.98


@pytest.mark.usefixtures("no_run_is_short")
def test_a_run_that_fits_nothing_half_way_is_pruned_and_changes_no_other() -> None:
    crushed, sound = on_digits(12, True, CRUSHED, SOUND)
    assert crushed.pruned
    assert not crushed.ok
    assert re.fullmatch(r"half-way, the training loss was still [\d.]+ of the loss at the start", crushed.message)
    assert crushed.fit is not None
    assert crushed.fit > 0.98
    assert not sound.pruned
    (alone,) = on_digits(12, True, SOUND)
    assert sound.validation == pytest.approx(alone.validation, rel=1e-5)
    assert sound.fit == pytest.approx(alone.fit, rel=1e-5)


@pytest.mark.parametrize("first", [0.1, 2.0])
def test_an_easy_first_batch_is_not_what_a_run_began_with(first: float) -> None:
    """The losses are about 1 at first, and half as high from a quarter of the run on."""
    weight = torch.nn.Parameter(torch.ones(1))
    seen = history.History(CRUSHED, ARMS["none"].build([weight], 1e-3, 0.0), steps=400)
    for step in range(400):
        seen.saw(first if step == 0 else 1.0 if step < 100 else 0.5)
        seen.before_step()
        seen.after_step()
    expected = 0.5 / max(first, (first + 19) / 20)
    assert seen.fit == pytest.approx(expected)


@pytest.mark.usefixtures("no_run_is_short")
def test_all_runs_of_a_task_may_be_pruned() -> None:
    outcomes = on_digits(12, True, CRUSHED, replace(CRUSHED, weight_decay=2.0), replace(CRUSHED, weight_decay=3.0))
    assert [outcome.pruned for outcome in outcomes] == [True] * 3


def test_a_pruned_run_would_have_learned_nothing() -> None:
    crushed, sound = on_digits(12, False, CRUSHED, SOUND)
    assert crushed.ok
    assert crushed.validation["cross_entropy"] > 2.25  # ten classes guessed: log(10) = 2.303
    assert sound.validation["cross_entropy"] < 2.0


@pytest.mark.usefixtures("no_run_is_short")
@pytest.mark.parametrize("stage", ["pilot", "final", "sweep"])
def test_only_runs_of_the_search_are_pruned(stage: str) -> None:
    (outcome,) = on_digits(4, True, replace(CRUSHED, stage=stage))  # type: ignore[arg-type]
    assert outcome.ok


def test_the_variants_of_decay_act_as_they_are_named() -> None:
    """A weight of 1 without gradient, whose learning rate halves after the first step."""

    def after(name: str) -> list[float]:
        param = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = ARMS[name].build([param], 0.1, 0.5)
        found = []
        for lr in (0.1, 0.05):
            optimizer.param_groups[0]["lr"] = lr
            param.grad = torch.zeros_like(param)
            before = param.item()
            optimizer.step()
            found.append(1 - param.item() / before)
        return found

    assert after("adamw") == pytest.approx([0.05, 0.025])
    assert after("adamw_independent") == pytest.approx([0.05, 0.025])  # a schedule scales this number too
    assert after("adamw_corrected") == pytest.approx([0.05, 0.0125])
    assert after("adamw_scheduled") == pytest.approx([0.05, 0.05])
    assert after("adamw_cautious") == pytest.approx([0.05, 0.025])  # a step of 0 does not oppose the weight
    assert [ARMS[name].decay_power for name in ("adamw", "adamw_corrected", "adamw_scheduled")] == [1, 2, 0]
