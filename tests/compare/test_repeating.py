"""Passes that are repeated from a recording: the same bits as the passes, and found out where they are not."""

from __future__ import annotations

import gc
import logging
import random
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from adamas.compare.job.job import Job
from adamas.compare.runner import history, training
from adamas.compare.runner.recording import Recording
from adamas.compare.runner.repeating import Repeater, RepetitionError, tensors_of
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import ARMS
from adamas.compare.study.run import Cell, Outcome
from adamas.compare.workloads import find
from tests.compare.test_user_jobs import ARMS as MANY
from tests.compare.test_user_jobs import CELLS, cells
from tests.compare.test_user_jobs import job as dropping
from tests.compare.tiny_job import job as tiny

STEPS = 20  # of the tiny job
TWO = (Cell("search", "adamw", 1e-2, 0.1, 0), Cell("search", "adam_l2", 1e-3, 1e-3, 0))


def both_ways(factory: Callable[[int, str], Job], arms: Any, task: Task) -> list[list[Outcome]]:
    """A task trained with passes repeated, and without."""
    return [training.begin(factory, "cpu", arms, task, repeats) for repeats in (True, False)]


def counted(factory: Callable[[int, str], Job], asked: list[int]) -> Callable[[int, str], Job]:
    """The job, noting how often its loss is asked for."""

    def make(seed: int, device: str) -> Job:
        made = factory(seed, device)
        return replace(made, loss=lambda batch: (asked.append(1), made.loss(batch))[1])

    return make


@pytest.mark.parametrize("name", ["digits", "digits-deep-layernorm", "modular", "sparse", "noise"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_every_workload_trains_to_the_same_bits(name: str, seeds: int) -> None:
    workload = find(name)
    load = workload.load()
    asked: list[int] = []

    def short(seed: int, device: str) -> Job:
        made = load(seed, device)
        assert isinstance(made, Job)
        return replace(made, epochs=max(1, 40 // made.steps_per_epoch))

    if seeds > 1 and not workload.seeds_together:
        pytest.skip("its seeds do not share a pass")
    chosen = tuple(
        Cell("search", arm, 3e-3, 0.1, seed) for seed in range(seeds) for arm in ("none", "adam_l2", "adamw")
    )
    task = Task(chosen, workload.metric)
    found, expected = (training.begin(short, "cpu", ARMS, task, repeats) for repeats in (True, False))
    assert found == expected
    training.begin(counted(short, asked), "cpu", ARMS, task)
    assert len(asked) < short(0, "cpu").steps * 0.6  # 3 to settle, then one in a power of two


def test_dropout_running_statistics_and_foreign_optimizers_are_repeated_to_the_bit() -> None:
    found, expected = both_ways(dropping, MANY, Task(cells(*CELLS), "loss"))
    assert found == expected


def test_what_diverges_on_the_way_leaves_a_smaller_stack_that_is_repeated_too() -> None:
    asked: list[int] = []
    task = Task(cells(CELLS[1], ("torch.optim:SGD(momentum=0.9)", 1e300, 0.0), CELLS[2]), "loss")

    def long(seed: int, device: str) -> Job:
        return replace(dropping(seed, device), epochs=40)

    found, expected = both_ways(long, MANY, task)
    assert str(found) == str(expected)  # NaN equals no NaN
    assert [outcome.feasible for outcome in found] == [True, False, True]
    training.begin(counted(long, asked), "cpu", MANY, task)
    assert len(asked) < 200 * 0.1  # 3 to settle and one in a power of two, twice


def changing(
    at: int, change: Callable[[Tensor], Tensor], until: int = STEPS, epochs: int = 4
) -> Callable[[int, str], Job]:
    """The tiny job, whose loss is another from some epoch until a later one; evaluation asks for no loss."""

    def make(seed: int, device: str) -> Job:
        made = replace(tiny(seed, device), epochs=epochs)
        begun: list[int] = []

        def batches(epoch: int) -> Any:
            begun.append(epoch)
            return made.batches(epoch)

        def loss(batch: Any) -> Tensor:
            value = made.loss(batch)
            assert isinstance(value, Tensor)
            return change(value) if at <= begun[-1] < until else value

        return replace(made, batches=batches, loss=loss)

    return make


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_loss_that_depends_on_the_epoch_is_found_out_and_trained_anew(
    at: int, caplog: pytest.LogCaptureFixture
) -> None:
    factory, task = changing(at, lambda value: 2 * value), Task(TWO, "loss")
    with pytest.raises(RepetitionError, match="at step"):
        training.begin(factory, "cpu", ARMS, task)
    expected = training.begin(factory, "cpu", ARMS, task, repeats=False)
    found = training.run(factory, "cpu", ARMS, task)
    assert [replace(outcome, seconds=0.0) for outcome in found] == expected
    assert "training anew" in caplog.text


def test_a_loss_that_changed_for_the_last_steps_of_a_stack_is_found_out_when_it_shrinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "SHORT", 1)

    def steeper(value: Tensor) -> Tensor:
        return value.detach() + 3 * (value - value.detach())

    hopeless = Cell("search", "adam_l2", 1e-12, 1e-3, 0)
    factory = changing(3, steeper, until=4, epochs=7)  # steps 16 to 20; 11 and 19 are compared
    task = Task((TWO[0], hopeless), "loss", may_give_up=True)
    with pytest.raises(RepetitionError, match="at step 17"):
        training.begin(factory, "cpu", ARMS, task)
    assert [outcome.given_up for outcome in training.run(factory, "cpu", ARMS, task)] == [False, True]


def test_a_check_changes_nothing() -> None:
    weight, mean = torch.tensor([2.0], requires_grad=True), torch.zeros(1)

    def run(batch: Tensor) -> list[Tensor]:
        mean.lerp_(batch.mean(), 0.1)
        noise = torch.rand(1)
        return list(torch.autograd.grad((batch * weight * noise).square().sum(), [weight]))

    repeater, told = Repeater(run, 1_000), []
    for checked in (False, True):
        torch.manual_seed(0)
        mean.zero_()
        for step in range(24):
            repeater(torch.tensor([float(step)]), [weight], [mean])
        if checked:
            repeater.check()
            repeater.check()
        told.append((mean.item(), torch.rand(1).item()))
    assert told[0] == told[1]


def test_random_numbers_of_pythons_own_are_found_out_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    factory, asked = changing(0, lambda value: value * random.random()), []
    found, expected = both_ways(counted(factory, asked), ARMS, Task(TWO, "loss"))
    assert found == expected
    assert len(asked) == 2 * STEPS
    assert "not repeated" in caplog.text


def test_a_batch_with_anything_but_tensors_is_not_repeated() -> None:
    def labelled(seed: int, device: str) -> Job:
        made = tiny(seed, device)
        return replace(
            made,
            batches=lambda epoch: [(batch, "train") for batch in made.batches(epoch)],
            loss=lambda batch: made.loss(batch[0]),
        )

    asked: list[int] = []
    found, expected = both_ways(counted(labelled, asked), ARMS, Task(TWO, "loss"))
    assert found == expected
    assert len(asked) == 2 * STEPS
    assert tensors_of((torch.ones(2), "train")) is None


STATE, OWN = torch.zeros(2, 2), torch.Generator()


@pytest.mark.parametrize(
    ("run", "obstacle"),
    [
        (lambda x: [x * x.max().item()], "as many elements as"),
        (lambda x: [x * torch.equal(x, x)], "Python can look at|as many elements as"),
        (lambda x: [x[x > 0]], "as many elements as"),
        (lambda x: [x.nonzero()], "as many elements as"),
        (lambda x: [x * torch.rand(2, generator=torch.Generator())], "a generator"),
        (lambda x: [STATE.add_(x)], "neither the model's nor"),
        (lambda x: [STATE[0].mul_(2), x], "neither the model's nor"),
        (lambda x: [torch.add(x, 1, out=STATE[1])], "by name"),
    ],
    ids=["item", "equal", "mask", "nonzero", "generator", "written", "written in part", "out"],
)
def test_what_another_step_may_do_otherwise_is_not_repeated(
    run: Callable[[Tensor], list[Tensor]], obstacle: str
) -> None:
    x = torch.tensor([1.0, -2.0])
    recording = Recording(lambda: run(x), [x])
    assert recording.obstacle is not None
    assert re.search(obstacle, recording.obstacle)


@pytest.mark.parametrize("generator", [None, OWN], ids=["torch's", "own"])
@pytest.mark.parametrize("steps", [2, 3, 40])
def test_what_is_written_and_drawn_is_so_once(generator: torch.Generator | None, steps: int) -> None:
    """Attempts to record, and comparisons, leave buffers, batches and random streams as a pass alone would."""

    def course(allowed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        OWN.manual_seed(0)
        buffer, batch = torch.zeros(3), torch.arange(3.0)

        def run(given: Tensor) -> list[Tensor]:
            buffer.add_(torch.rand(3, generator=generator))
            given.mul_(1.01)
            return [given * buffer]

        repeater = Repeater(run, steps, allowed)
        return [each.clone() for _ in range(steps) for each in (*repeater(batch, [], [buffer]), buffer, batch)]  # type: ignore[union-attr]

    for one, other in zip(course(True), course(False), strict=True):
        assert torch.equal(one, other)


def test_an_error_of_the_job_is_raised_as_it_is() -> None:
    def failing(seed: int, device: str) -> Job:
        made, asked = tiny(seed, device), []

        def loss(batch: Any) -> Any:
            asked.append(1)
            return made.loss({}["mine"] if len(asked) == 2 else batch)

        return replace(made, loss=loss)

    with pytest.raises(KeyError, match="mine"):
        training.run(failing, "cpu", ARMS, Task(TWO, "loss"))


def test_an_error_of_a_repetition_is_raised_where_the_job_can_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    def wandering(seed: int, device: str) -> Job:
        made = tiny(seed, device)
        return replace(made, batches=lambda epoch: [rows + (90 if epoch == 3 else 0) for rows in made.batches(epoch)])

    with pytest.raises(IndexError, match="out of bounds") as found:
        training.run(wandering, "cpu", ARMS, Task(TWO, "loss"))
    assert "a repetition raised IndexError" in caplog.text
    assert any(entry.path.name == "tiny_job.py" for entry in found.traceback)  # type: ignore[union-attr]


def test_a_pass_that_torch_cannot_watch_is_trained_without(caplog: pytest.LogCaptureFixture) -> None:
    def shy(seed: int, device: str) -> Job:
        made = tiny(seed, device)

        def loss(batch: Any) -> Any:
            if _get_current_dispatch_mode() is not None:
                raise NotImplementedError("as torch does for some operations")
            return made.loss(batch)

        return replace(made, loss=loss)

    task = Task(TWO, "loss")
    found = training.run(shy, "cpu", ARMS, task)
    assert [replace(outcome, seconds=0.0) for outcome in found] == training.begin(tiny, "cpu", ARMS, task)
    assert "for some operations: training anew" in caplog.text


def test_batches_of_another_shape_have_a_recording_of_their_own() -> None:
    calls: list[tuple[int, ...]] = []
    weight = torch.tensor([2.0], requires_grad=True)

    def run(batch: Tensor) -> list[Tensor]:
        calls.append(tuple(batch.shape))
        return list(torch.autograd.grad((batch * weight).square().sum(), [weight]))

    repeater = Repeater(run, 1_000)
    for step in range(40):
        batch = torch.full((3,) if step % 4 == 3 else (5,), float(step))
        assert repeater(batch, [weight], [])[0].item() == pytest.approx(4 * batch.square().sum().item())  # type: ignore[union-attr]
    assert calls.count((5,)) == 2 + 5  # the first two, and repetitions 1, 2, 4, 8 and 16 of 28
    assert calls.count((3,)) == 2 + 4


def test_a_recording_keeps_no_pass_in_memory() -> None:
    made: list[weakref.ref[Tensor]] = []
    weight, constant = torch.ones(4, 4, requires_grad=True), torch.eye(4)

    def run(batch: Tensor) -> list[Tensor]:
        hidden = torch.relu(batch @ weight)
        made.append(weakref.ref(hidden))
        return list(torch.autograd.grad((hidden.view(-1) @ (constant @ hidden).view(-1)), [weight]))

    batch = torch.rand(4, 4)
    recording = Recording(lambda: run(batch), [batch, weight])
    recording.found = ()
    (again,) = recording.repeat([batch, weight])
    gc.collect()
    assert made[0]() is None
    held = [value for value in recording._values if isinstance(value, Tensor)]
    assert [id(value) for value in held] == [id(constant)]
    assert torch.equal(again, run(batch)[0])  # type: ignore[arg-type]


def test_a_tensor_made_of_numbers_is_a_constant() -> None:
    """A list as an index becomes one, by an operation that gives back what it is given."""
    weight = torch.randn(12, 3, requires_grad=True)

    def run(batch: Tensor) -> list[Tensor]:
        return [*torch.autograd.grad((weight[[0, 2, 4]] @ batch).square().sum(), [weight])]

    first, second = torch.randn(2, 3)
    recording = Recording(lambda: run(first), [first, weight])
    for _ in range(2):
        assert torch.equal(recording.repeat([second, weight])[0], run(second)[0])  # type: ignore[arg-type]


class Normed(nn.Module):
    """Operations that take lists of tensors and return several."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(3, 4), nn.Linear(3, 4), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(torch.cat([self.left(x), self.right(x)], dim=-1))
        one, other = both.chunk(2, dim=-1)
        return torch.stack([one.sin(), other.max(dim=-1, keepdim=True).values * one]).square()


def test_operations_on_lists_and_with_several_results_are_repeated() -> None:
    torch.manual_seed(0)
    model = Normed().double()
    weights = list(model.parameters())

    def run(batch: Tensor) -> list[Tensor]:
        return [*torch.autograd.grad(model(batch).mean(), weights)]

    first, second = torch.randn(2, 5, 3, dtype=torch.float64)
    recording = Recording(lambda: run(first), [first, *weights])
    for one, other in zip(recording.repeat([second, *weights]), run(second), strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]
