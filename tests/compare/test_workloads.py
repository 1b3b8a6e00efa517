"""The built-in workloads: what each is made of, and the facts that hold of it whatever a study finds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from adamas.cli import WORKLOADS as NAMED_IN_HELP
from adamas.compare.job.check import find
from adamas.compare.job.job import Job
from adamas.compare.runner import training
from adamas.compare.runner.copies import Calls, total
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import ARMS
from adamas.compare.study.run import Outcome, Run
from adamas.compare.workloads import WORKLOADS, digits, digits_deep, modular, noise, sparse
from adamas.decay import adam_l2_equilibrium_rms, adamw_equilibrium_rms


def made(name: str, seed: int = 0) -> Job:
    job = WORKLOADS[name].load()(seed, "cpu")
    assert isinstance(job, Job)
    return job


def test_the_help_names_every_workload() -> None:
    assert set(NAMED_IN_HELP) == set(WORKLOADS)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_passes_the_check(name: str) -> None:
    found = find(name, "cpu", None)
    assert found.metric == WORKLOADS[name].metric
    assert found.stackable == (name != "chars")  # torch cannot batch its attention, and goes through it one by one
    assert found.expected
    assert found.findings


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_the_seed_fixes_weights_and_batches(name: str) -> None:
    def start(seed: int) -> list[torch.Tensor]:
        job = made(name, seed)
        losses = [total(job.loss(batch)) for batch in islice(job.batches(0), 2)]
        return [*job.model.parameters(), *losses]

    assert all(map(torch.equal, start(3), start(3)))
    assert not torch.equal(start(3)[0], start(4)[0])


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "chars"])
def test_many_copies_have_the_loss_of_one(name: str) -> None:
    """What stacked training rests on, at other weights than the initial ones."""
    job = made(name)
    calls = Calls(job)
    named = {key: param.detach() for key, param in calls.named_parameters()}
    stacked = {key: torch.stack([param * factor for factor in (1.0, 0.9, 1.1)]) for key, param in named.items()}
    batch = next(iter(job.batches(0)))
    together = torch.vmap(lambda params: torch.func.functional_call(calls, params, (batch,)))(stacked)
    alone = [
        torch.func.functional_call(calls, {key: param[copy] for key, param in stacked.items()}, (batch,))
        for copy in range(3)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.seeds_together])
def test_seeds_train_together_as_alone(name: str) -> None:
    """Each with its own weights and batches: had they another seed's, they would end five tolerances away."""
    workload = WORKLOADS[name]

    def brief(seed: int, device: str) -> Job:
        job = workload.load()(seed, device)
        assert isinstance(job, Job)
        short = list(islice(job.batches(0), 4))
        return replace(job, batches=lambda epoch: iter(short), epochs=2, steps_per_epoch=4)

    runs = [Run("final", arm, 1e-3, 0.1, seed) for seed in (3, 4, 5) for arm in ("adamw", "adam_l2")][1:]
    together = training.train_task(brief, "cpu", ARMS, Task(tuple(runs), workload.metric))
    alone = [training.train_task(brief, "cpu", ARMS, Task((run,), workload.metric))[0] for run in runs]
    for one, other in zip(together, alone, strict=True):
        assert one.training_loss == pytest.approx(other.training_loss, rel=2e-5)
        assert one.validation == pytest.approx(other.validation, rel=2e-5)
        assert one.test == pytest.approx(other.test, rel=2e-5)
        assert [moment.validation for moment in one.curve] == pytest.approx(
            [moment.validation for moment in other.curve], rel=2e-5
        )
    first, other = (found.training_loss for found in (alone[0], alone[2]))  # one arm's, of two seeds
    assert first != pytest.approx(other, rel=1e-4)


def test_the_digits_are_scikit_learns() -> None:
    """Their file is read without importing scikit-learn; what is read is what it would give."""
    for ours, theirs in zip(digits.table(), load_digits(return_X_y=True), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_modular_has_every_pair_once() -> None:
    data = modular.data()
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [2088, 697, 696]
    pairs = {tuple(pair) for part in parts for pair in part.tolist()}
    assert len(pairs) == 59 * 59


def test_modular_asks_for_sums() -> None:
    """Logits that count are right everywhere: planted in the place of the network, they answer every pair."""
    job = made("modular")
    batch = next(iter(job.batches(0)))
    logits = torch.nn.functional.one_hot(batch.sum(-1) % 59, 59).float() * 100
    assert torch.nn.functional.cross_entropy(logits, batch.sum(-1) % 59) < 1e-6
    assert job.steps == 2240


def test_a_louder_loss_is_the_same_job_otherwise() -> None:
    soft, loud, louder = (
        factory(5, "cpu") for factory in (digits_deep.job, digits_deep.job_loss_x10, digits_deep.job_loss_x100)
    )
    batches = [next(iter(job.batches(0))) for job in (soft, loud, louder)]
    assert all(torch.equal(batches[0][0], batch[0]) for batch in batches)
    losses = [total(job.loss(batch)).item() for job, batch in zip((soft, loud, louder), batches, strict=True)]
    assert losses[1:] == pytest.approx([10 * losses[0], 100 * losses[0]], rel=1e-6)
    assert soft.evaluate("validation") == loud.evaluate("validation") == louder.evaluate("validation")


def test_the_twin_differs_in_its_norms_alone() -> None:
    plain, normalised = made("digits-deep"), made("digits-deep-layernorm")
    norms = [module for module in normalised.model.modules() if isinstance(module, torch.nn.LayerNorm)]
    extra = sum(param.numel() for norm in norms for param in norm.parameters())
    assert len(norms) == digits_deep.BLOCKS == 12
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in plain.model.modules())
    count = [sum(param.numel() for param in job.model.parameters()) for job in (plain, normalised)]
    assert count[1] - count[0] == extra


def test_words_differ_in_frequency_and_texts_in_nothing_else() -> None:
    data = sparse.data()
    assert {name: len(part.classes) for name, part in data.items()} == {"train": 2000, "validation": 2000, "test": 4000}
    counts = torch.cat([part.counts for part in data.values()])
    assert (counts.sum(1) == sparse.LENGTH).all()
    share = counts.mean(0) / sparse.LENGTH
    harmonic = sum(1 / rank for rank in range(1, sparse.WORDS + 1))
    assert share[0] == pytest.approx(1 / harmonic, rel=0.05)  # Zipf's law
    assert share[500:].sum() == pytest.approx(math.log(2) / harmonic, rel=0.1)
    balance = torch.cat([part.classes for part in data.values()]).float().mean().item()
    assert 0.2 < balance < 0.8


def finish(name: str, *runs: Run) -> list[Outcome]:
    workload = WORKLOADS[name]
    return training.train_task(workload.load(), "cpu", ARMS, Task(runs, workload.metric))


def test_noise_settles_where_theory_says() -> None:
    """8,192 weights know an RMS to 0.8 %; it is 1.4 % below the prediction, which takes steps to be independent."""
    arms = {arm: Run("final", arm, lr, decay, 1000) for arm, lr, decay in WORKLOADS["noise"].fixed}
    adamw, l2 = finish("noise", arms["adamw"], arms["adam_l2"])
    for scale in noise.SCALES:
        for outcome, predicted in (
            (adamw, adamw_equilibrium_rms(noise.LR, noise.WEIGHT_DECAY)),
            (l2, adam_l2_equilibrium_rms(noise.LR, noise.WEIGHT_DECAY, scale)),
        ):
            assert (outcome.test or {})[f"rms_{scale:g}"] == pytest.approx(predicted, rel=0.05)
    assert (l2.test or {})["spread"] == pytest.approx(1.0, abs=0.05)  # sqrt(100) between the scales .1 and 10


@pytest.mark.slow
def test_decay_decides_on_modular() -> None:
    none, adamw, l2 = finish(
        "modular",
        Run("final", "none", 3e-2, 0.0, 1002),
        Run("final", "adamw", 3e-2, 0.4, 1002),
        Run("final", "adam_l2", 1.8e-2, 7.5e-5, 1002),
    )
    assert (none.test or {})["accuracy"] < 0.2
    assert (none.training_loss or 1.0) < 1e-3  # it knows its own pairs by heart
    assert (adamw.test or {})["accuracy"] > 0.99
    assert (l2.test or {})["accuracy"] > 0.99


def test_fixed_settings_name_every_default_arm() -> None:
    assert [(arm, lr) for arm, lr, _ in WORKLOADS["noise"].fixed] == [
        ("none", noise.LR),
        ("adam_l2", noise.LR),
        ("adamw", noise.LR),
    ]
