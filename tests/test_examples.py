"""Each example is short, complete and runs; those that are jobs can be compared."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adamas.compare.api import run_study
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.study.arms import ARMS, DEFAULT
from adamas.compare.study.direction import looks_reversed
from adamas.compare.study.run import Run
from adamas.compare.study.settings import Settings
from tests.compare.jobs import look_over
from tests.compare.tiny_job import TINY

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.rglob("*.py"))
JOBS = [path for path in EXAMPLES if path.stem.endswith("_job")]
LINES = {"vision_job": 40}  # fewer than; 60 for the others
# The figure that an example prints, and how it should be: an accuracy in per cent (95 for others), or another figure.
ABOVE = {"trainer_job": 20.0, "lightning_job": 85.0, "gru_job": 70.0, "vae_job": -30.0, "transformers_resumed": 30.0}
BELOW = {"recommender_job": 0.85, "gan_job": 0.5, "fsdp_gpt": 3.0}
METRIC = {"recommender_job": "rmse", "gan_job": "distance", "vae_job": "-elbo"}  # "loss" for the others
STEPS = {"vision_job": 18, "gan_job": 30, "recommender_job": 30, "gru_job": 15, "vae_job": 10}  # of an epoch; else 20
LEARNS = 0.99  # a run improves the primary figure of the untrained weights to this fraction of it, or lower


@pytest.fixture(autouse=True)
def its_packages(path: Path) -> None:
    """Skip an example whose package is not there."""
    extras = {"transformers": "dev", "lightning": "dev", "keras": "keras", "tensorflow": "bench"}
    for package, extra in extras.items():
        named = re.search(rf"^(from|import) {package}\b", path.read_text(), re.MULTILINE)
        if named and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'adamas[{extra}]'")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES.get(path.stem, 60)
    result = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    if path.stem == "vision_job":
        assert result.stdout.startswith("problems: []")
        return
    printed = re.search(r"\btest \w+ (-?[\d.]+)", result.stdout)
    assert printed is not None
    if path.stem in BELOW:
        assert float(printed.group(1)) < BELOW[path.stem]
    else:
        assert float(printed.group(1)) > ABOVE.get(path.stem, 95.0)


@pytest.mark.filterwarnings("ignore")  # of packages that an example brings
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_example_can_be_compared(path: Path) -> None:
    """What `adamas compare` does with it at first, and a run of each arm as a worker would train it."""
    assert f"adamas compare {path.relative_to(FOLDER.parent)}:job --budget quick" in path.read_text()
    workload = look_over(f"{path}:job", "cpu", None)
    metric = METRIC.get(path.stem, "loss")
    assert (workload.name, workload.metric, workload.stackable) == (path.stem, metric, path.stem == "vision_job")
    pilot = Run("pilot", "none", 3e-3, 0.0, 0)
    runs = tuple(Run("search", arm, 3e-3, 1e-5, 0) for arm in DEFAULT if arm != "none")
    (first,) = train_task(workload.load(), "cpu", ARMS, Task((pilot,), metric))
    assert first.untrained is not None
    assert first.gradient_scale is not None
    for outcome in (first, *train_task(workload.load(), "cpu", ARMS, Task(runs, metric))):
        assert outcome.ok
        assert outcome.steps == outcome.epochs * STEPS.get(path.stem, 20)
        assert outcome.validation[metric] <= LEARNS * first.untrained[metric]
        assert outcome.test is None
    assert not looks_reversed([first], metric)


@pytest.mark.parametrize("path", [FOLDER / "jobs" / "vae_job.py"], ids=["vae_job.py"])
def test_example_gets_a_verdict(path: Path, tmp_path: Path) -> None:
    """A whole study of very few runs; its metric is the negative of a figure that is better when higher."""
    workload = look_over(f"{path}:job", "cpu", None)
    result = run_study(Settings(workload, budget=TINY, seeds=2, workers=0, out=tmp_path))
    assert {run["status"] for run in result.runs} == {"ok"}
    test = result.arms["adamw"].test
    assert test["-elbo"].values == tuple(-value for value in test["elbo"].values)
    assert not looks_reversed(result.summary.record.outcomes.values(), "-elbo")
