from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.study.arms import ARMS
from adamas.compare.study.run import Outcome, Run, Stage
from adamas.compare.workloads import chars, find
from adamas.compare.workloads.chars_text import Speaker, write


def start(seed: int) -> tuple[float, Tensor]:
    made = find("chars").load()(seed, "cpu")
    first = next(iter(made.batches(0)))
    return made.loss(first).item(), first


def test_the_text_is_the_one_that_results_were_made_with() -> None:
    """If the text changes, the workload needs a new revision."""
    digest = hashlib.sha256(write(40_000).encode()).hexdigest()
    assert (find("chars").revision, digest[:16]) == (1, "6d2a800d7f5a078e")


def test_the_splits_are_disjoint_stretches_of_the_text() -> None:
    data = chars.data()
    stretches = [data.places[name] for name in ("train", "validation", "test")]
    assert stretches[0].start == 0
    assert all(earlier.stop == later.start for earlier, later in pairwise(stretches))
    text = write(stretches[-1].stop)
    for part, stretch in zip((data.train, data.validation, data.test), stretches, strict=True):
        assert "".join(data.alphabet[index] for index in part) == text[stretch.start : stretch.stop]


def test_facts_do_not_change() -> None:
    """A person has the same pronoun and town in every stretch, so that a model can learn them."""
    people = {person.name: person for person in Speaker().people}
    sentences = write(40_000).replace("\n", " ").split(". ")
    anecdotes = [sentence.split() for sentence in sentences if ", then " in sentence]
    origins = [sentence.split() for sentence in sentences if " of " in sentence]
    assert min(len(anecdotes), len(origins)) > 100
    assert all(people[words[0]].pronoun == words[3] for words in anecdotes[:-1])
    assert all(people[words[0]].town == words[2] for words in origins[:-1])


def test_the_seed_fixes_weights_and_order() -> None:
    (loss, batch), (again, same), (other, another) = start(0), start(0), start(1)
    assert loss == again
    assert torch.equal(batch, same)
    assert loss != other
    assert not torch.equal(batch, another)


def test_batches_are_complete_and_start_elsewhere_in_each_epoch() -> None:
    made = find("chars").load()(0, "cpu")
    epochs = [list(made.batches(epoch)) for epoch in range(40)]
    assert {len(batches) for batches in epochs} == {made.steps_per_epoch}
    assert {tuple(batch.shape) for batches in epochs for batch in batches} == {(chars.BATCH, chars.CONTEXT + 1)}
    cut = {tuple(window.tolist()) for batches in epochs[:2] for batch in batches for window in batch}
    assert len(cut) > 1.5 * made.steps_per_epoch * chars.BATCH


def test_a_later_character_changes_no_earlier_prediction() -> None:
    model = find("chars").load()(0, "cpu").model.eval()
    window = chars.data().train[None, : chars.CONTEXT].clone()
    with torch.no_grad():
        before = model(window)
        for place in (1, 17, chars.CONTEXT - 1):
            changed = window.clone()
            changed[0, place] = (changed[0, place] + 1) % len(chars.data().alphabet)
            after = model(changed)
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place:], after[:, place:])


def test_most_weights_are_in_matrices_large_enough_to_be_packed() -> None:
    params = list(find("chars").load()(0, "cpu").model.parameters())
    large = [param.numel() for param in params if param.ndim == 2 and param.numel() >= 4096 and param.shape[1] >= 64]
    assert sum(large) > 0.9 * sum(param.numel() for param in params)


def test_gains_and_biases_do_not_decay() -> None:
    made = find("chars").load()(0, "cpu")
    optimizer = ARMS["adamw"].build(made.parameter_groups or (), 1e-3, 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(made.model.parameters()))


def trained(epochs: int, stage: Stage) -> Outcome:
    run = Run(stage, "adamw", 4e-3, 1.0, 3)
    task = Task((run,), "cross_entropy")
    (outcome,) = train_task(lambda seed, device: replace(chars.job(seed, device), epochs=epochs), "cpu", ARMS, task)
    return outcome


def test_it_learns_more_than_the_statistics_of_pairs_of_characters() -> None:
    """In a fifth of a run, cross-entropy falls below the least that a model of single characters can reach."""
    text = write(chars.TRAIN + chars.VALIDATION)[chars.TRAIN :]
    pairs, firsts = Counter(pairwise(text)), Counter(text[:-1])
    given_one = -sum(count * math.log(count / firsts[first]) for (first, _), count in pairs.items()) / (len(text) - 1)
    likeliest = {first: count for (first, _), count in sorted(pairs.items(), key=lambda item: item[1])}
    figures = trained(8, "confirm").validation
    assert figures["cross_entropy"] < 0.95 * given_one
    assert figures["accuracy"] > sum(likeliest.values()) / (len(text) - 1)


def test_a_run_repeats_bit_for_bit() -> None:
    first, again = trained(1, "final"), trained(1, "final")
    assert (first.validation, first.test) == (again.validation, again.test)
    assert first.test != first.validation
