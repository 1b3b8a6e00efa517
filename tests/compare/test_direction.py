"""Which way is a metric better? Its name may say so, and its course in the pilot runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adamas.cli import app
from adamas.compare.api import run_study
from adamas.compare.job.check import inspect_job
from adamas.compare.job.job import Job
from adamas.compare.job.load import from_function
from adamas.compare.study.direction import better_when_higher, looks_reversed
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Outcome
from adamas.compare.verdict.warnings import reversed_warning
from tests.compare import tiny_job
from tests.compare.tiny_job import TINY, Settings


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        *(
            (name, True)
            for name in ("accuracy", "val/acc@1", "f1_score", "R2", "neg_log_loss", "-loss", "-neg_accuracy")
        ),
        *((name, False) for name in ("loss", "f1_loss", "accuracy_error", "-accuracy", "neg_accuracy", "regret")),
        *((name, None) for name in ("top1", "-top1", "distance", "elbo")),
    ],
)
def test_a_name_says_which_way_is_better(metric: str, higher: bool | None) -> None:
    assert better_when_higher(metric) is higher


def pilot(before: float, after: float, fit: float | None, status: str = "ok") -> Outcome:
    validation = {"top1": after, "-top1": -after, "loss": after} if status == "ok" else {}
    return Outcome(status, validation, untrained={"top1": before, "-top1": -before, "loss": before}, fit=fit)  # type: ignore[arg-type]


LEARNED = [pilot(0.1, 0.9, 0.5), pilot(0.1, 0.8, 0.3)]


def test_a_metric_that_rises_while_the_model_learns_is_questioned() -> None:
    assert looks_reversed(LEARNED, "top1")
    assert not looks_reversed(LEARNED, "-top1")
    assert not looks_reversed(LEARNED, "loss")  # a loss rises in a model that memorises
    assert not looks_reversed([pilot(0.9, 0.1, 0.5)], "top1")
    assert looks_reversed([pilot(0.9, 0.1, 0.5)], "-top1")
    assert not looks_reversed([pilot(0.1, 0.9, 1.2), pilot(0.1, 0.0, None, "diverged")], "top1")  # none has learned
    assert looks_reversed([*LEARNED, pilot(0.1, 0.1, 0.99), pilot(0.1, 0.0, None, "diverged")], "top1")
    assert looks_reversed([pilot(0.1, 0.9, None)], "top1")  # of an own loop the training loss is not known
    assert not looks_reversed([*LEARNED, pilot(0.1, 0.05, 0.5)], "top1")
    assert not looks_reversed([], "top1")


def test_the_warning_names_the_remedy() -> None:
    assert "judge by --metric=-top1, or set maximize=True in the job" in reversed_warning("top1")
    assert "judge by --metric=top1, or leave maximize=True out of the job" in reversed_warning("-top1")


def counted_job(seed: int, device: str) -> Job:
    """Return the tiny job with a figure that is better when higher."""
    made = tiny_job.job(seed, device)

    def evaluate(split: str) -> dict[str, float]:
        return {"hits": -made.evaluate(split)["loss"]}  # type: ignore[arg-type]

    pieces = vars(made) | {"evaluate": evaluate, "metric": "hits", "maximize": True}
    return Job(**pieces)


def test_a_study_of_a_maximized_metric_finds_what_its_loss_finds(tmp_path: Path) -> None:
    margin = Margin.parse("0.005abs")
    chosen = {}
    for name, job in (("hits", counted_job), ("loss", tiny_job.job)):
        workload = replace(inspect_job(from_function(job), margin, {}), seeds_together=False)
        settings = Settings(workload, budget=TINY, seeds=2, workers=0, out=tmp_path / name, margin=margin)
        result = run_study(settings)
        chosen[name] = {arm: (found.lr, found.weight_decay) for arm, found in result.arms.items()}
        if name == "hits":
            test = result.arms["adamw"].test
            assert test["-hits"].mean == -test["hits"].mean
    assert chosen["hits"] == chosen["loss"]


@pytest.mark.parametrize("typed", [["--metric=-top1"], ["--metric", "-top1"]])
def test_the_command_line_takes_a_negated_metric(typed: list[str], tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["compare", "digits", *typed, "--margin", "0.01abs", "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "returned cross_entropy, accuracy, but not 'top1'" in found.stderr.replace("\n", " ")
