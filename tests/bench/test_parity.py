"""Parity runs: what is trained, kept, resumed and said of them. Nothing here trains for more than a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.progress import Progress

from adamas.compare.workloads import find
from benchmarks import parity, parity_variants
from benchmarks.parity_result import Parity, Run, table
from benchmarks.parity_variants import RECIPES, VARIANTS


def runs(variant: str, factor: float, seeds: int = 4) -> list[Run]:
    """Losses of about `factor`, a little apart."""
    losses = [factor * (1.0 + 0.1 * seed) + 1e-4 * seed**2 for seed in range(seeds)]
    return [Run("digits", variant, seed, {"cross_entropy": loss}, 1.5, {"x": "1"}) for seed, loss in enumerate(losses)]


def study(**factors: float) -> Parity:
    result = Parity(parity.recipes(["digits"]))
    for variant, factor in factors.items():
        result.runs += runs(variant, factor)
    return result


def test_the_table_marks_what_exceeds_its_limit() -> None:
    shown = table(study(float32=1.0, packed16=1.02, packed12=1.001))
    (packed16,) = [line for line in shown.splitlines() if "| packed16 |" in line]
    (packed12,) = [line for line in shown.splitlines() if "| packed12 |" in line]
    assert "+1%: **over**" in packed16
    assert "+2%: within" in packed12
    assert "| 4 |" in packed12


def test_the_upper_end_counts_not_the_mean() -> None:
    result = study(float32=1.0)
    values = [run.loss * (1.005 + 0.02 * (-1) ** run.seed) for run in result.runs]
    result.runs += [
        replace(run, variant="packed16", validation={"cross_entropy": value})
        for run, value in zip(list(result.runs), values, strict=True)
    ]
    difference = result.difference("digits", "packed16")
    assert difference is not None
    assert difference.mean < 0.01 < difference.high
    assert "**over**" in table(result)


def test_only_pairs_are_compared() -> None:
    result = study(float32=1.0)
    result.runs += [*runs("packed16", 1.0, seeds=3), replace(runs("packed16", 1.0)[0], seed=99)]
    difference = result.difference("digits", "packed16")
    assert difference is not None
    assert difference.values == (0.0, 0.0, 0.0)


def test_divergence_is_said() -> None:
    result = study(float32=1.0, packed16=1.0)
    result.runs[-1] = replace(result.runs[-1], validation={})
    assert "1 diverged" in table(result)
    assert "+1%: **over**" in table(result)
    assert "+1%: undecided" in table(Parity(result.recipes, result.runs[:5]))


def test_runs_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "parity.json"
    result = study(float32=1.0)
    result.write(path)
    assert Parity.read(path) == result
    assert [each.name for each in path.parent.iterdir()] == ["parity.json"]


def test_a_changed_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "parity.json"
    study(float32=1.0).write(path)
    assert len(parity.earlier(path, ["chars", "digits"], fresh=False).runs) == 4
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], lr=1.0))
    with pytest.raises(typer.BadParameter, match="--fresh"):
        parity.earlier(path, ["digits"], fresh=False)
    assert parity.earlier(path, ["digits"], fresh=True).runs == []


def test_finished_runs_are_not_repeated_and_failures_stop_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def pretended(result: Parity, due: list[Any], workers: int, progress: Progress) -> Any:
        for key in due:
            asked.append(key)
            yield key, ValueError("no") if key[1] == "packed16" else Run(*key, {"cross_entropy": 1.0}, 1.0, {})

    monkeypatch.setattr(parity, "conduct", pretended)
    path = tmp_path / "parity.json"
    for seeds, exit_code in ((2, 1), (3, 1)):
        with pytest.raises(typer.Exit) as stopped:
            parity.main(seeds, "digits", "packed16", 1, path, fresh=False)
        assert stopped.value.exit_code == exit_code
    assert asked.count(("digits", "float32", 0)) == 1
    assert asked.count(("digits", "packed16", 0)) == 2  # it did not finish
    assert len(json.loads(path.read_text())["runs"]) == 3
    assert "packed16 failed: ValueError: no" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity_variants, "find_spec", lambda name: None)
    assert [name for name, variant in VARIANTS.items() if variant.missing] == ["bitsandbytes-8bit", "torchao-8bit"]


@pytest.mark.parametrize("workload", list(RECIPES))
def test_a_pair_differs_in_the_optimizer_alone(workload: str) -> None:
    """What is prepared leaves torch's stream and the data order as they were."""

    def start(variant: str) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
        made = find(workload).load()(3, "cpu")
        prepare = VARIANTS[variant].prepare
        if prepare is not None:
            prepare(made.model, 3)
        batch = next(iter(made.batches(0)))
        loss = made.loss(batch)
        assert loss.dtype == torch.float32
        return [param.detach().float() for param in made.model.parameters()], torch.rand(3), batch

    weights, stream, batch = start("float32")
    for variant, apart in (("float32 perturbed", 1e-5), ("bf16+24", 2**-8)):
        others, same_stream, same_batch = start(variant)
        assert torch.equal(stream, same_stream)
        assert all(map(torch.equal, batch, same_batch))
        for weight, other in zip(weights, others, strict=True):
            torch.testing.assert_close(other, weight, rtol=apart, atol=0)
    assert not torch.equal(weights[0], start("float32 perturbed")[0][0])


def test_one_run_in_this_process() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    found = parity.finish(("digits", "float32", 5))
    assert torch.equal(torch.rand(1), expected)
    assert found.key == ("digits", "float32", 5)
    assert 1.0 < found.loss < 1.5
    assert {"adamas", "torch", "python"} <= found.versions.keys()
