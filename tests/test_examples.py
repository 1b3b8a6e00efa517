"""Each example is short, complete and runs; those that are jobs can be compared."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.study.arms import ARMS, DEFAULT
from adamas.compare.study.run import Run
from tests.compare.jobs import look_over

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
JOBS = [path for path in EXAMPLES if path.stem.endswith("_job")]
LINES = {"vision_job": 40}  # fewer than; 60 for the others
ACCURACY = {"trainer_job": 50.0}  # more than, in per cent; 95 for the others


@pytest.fixture(autouse=True)
def its_packages(path: Path) -> None:
    """Skip an example whose package is not there."""
    for package, extra in (("transformers", "dev"), ("keras", "keras"), ("tensorflow", "bench")):
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
    accuracy = re.search(r"test accuracy ([\d.]+)%", result.stdout)
    assert accuracy is not None
    assert float(accuracy.group(1)) > ACCURACY.get(path.stem, 95.0)


@pytest.mark.filterwarnings("ignore")  # of packages that an example brings
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_example_can_be_compared(path: Path) -> None:
    """What `adamas compare` does with it at first, and a run of each arm as a worker would train it."""
    assert f"adamas compare examples/{path.name}:job --budget quick" in path.read_text()
    workload = look_over(f"{path}:job", "cpu", None)
    assert (workload.name, workload.metric, workload.stackable) == (path.stem, "loss", path.stem == "vision_job")
    runs = tuple(Run("search", arm, 3e-3, 0.0 if arm == "none" else 1e-5, 0) for arm in DEFAULT)
    for outcome in train_task(workload.load(), "cpu", ARMS, Task(runs, workload.metric)):
        assert outcome.ok
        assert outcome.steps == outcome.epochs * {"vision_job": 18}.get(path.stem, 20)
        assert 100 * outcome.validation["accuracy"] > ACCURACY.get(path.stem, 95.0) - 5
        assert outcome.test is None
