"""The comparison as a library, called from a script, a notebook and a test."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas
import pytest
import torch
from torch import Tensor, nn

import adamas.compare
from adamas.compare import Job, StudyError, StudyResult, check, compare
from tests.compare.conftest import ROOT
from tests.compare.studies import finished

SMALL: dict[str, Any] = {
    "arms": ("adam_l2", "adamw"), "budget": "scout", "seeds": 2, "progress": False,
}  # fmt: skip


def line(noise: float = 0.5) -> Any:
    """Return a job that is a local function, and that uses a variable of the function around it."""

    def job(seed: int, device: str) -> Job:
        model = nn.Linear(4, 1)
        inputs = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
        targets = inputs[:, :1] + noise * torch.randn(48, 1, generator=torch.Generator().manual_seed(2))
        parts = {"validation": slice(16, 32), "test": slice(32, 48)}

        def loss(rows: Tensor) -> Tensor:
            return (model(inputs[rows]) - targets[rows]).square().mean()

        return Job(
            model,
            batches=lambda epoch: torch.randperm(16).split(8),
            loss=loss,
            evaluate=lambda split: {"loss": loss(torch.arange(48)[parts[split]]).item()},
            epochs=2,
            steps_per_epoch=2,
            stackable=True,
        )

    return job


def figures(result: StudyResult) -> list[dict[str, Any]]:
    return sorted(({**run, "seconds": 0} for run in result.runs), key=lambda run: json.dumps(run, sort_keys=True))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return compare(line(), workers=0, out=tmp_path_factory.mktemp("inline"), **SMALL)


@pytest.mark.usefixtures("forked_workers")
def test_a_function_of_a_test_is_compared_alike_here_and_in_workers(result: StudyResult, tmp_path: Path) -> None:
    with_workers = compare(line(), workers=2, out=tmp_path, **SMALL)
    assert figures(with_workers) == figures(result)
    assert with_workers.to_json() == result.to_json()


def test_a_result_holds_what_a_reader_wants(result: StudyResult, tmp_path: Path) -> None:
    assert result.verdict.kind in ("switch", "keep", "no_difference", "undecided", "no_decay")
    assert result.verdict.text == f"{result.verdict.advice}: {result.verdict.evidence}"
    assert result.difference is not None
    assert len(result.difference.values) == 2
    adamw = result.arms["adamw"]
    assert adamw.lr > 0 < adamw.weight_decay
    assert len(adamw.validation.values) == len(adamw.test["loss"].values) == 2
    table = pandas.DataFrame(result.runs)
    finals = table[(table.stage == "final") & (table.arm == "adamw")]
    assert finals.test_loss.tolist() == list(adamw.test["loss"].values)
    assert set(table.status) <= {"ok", "diverged", "pruned", "failed"}
    assert json.loads(json.dumps(result.to_json()))["arms"]["adamw"]["lr"] == adamw.lr
    assert result.verdict.advice in repr(result)
    assert "AdamW" in repr(result)
    html = result._repr_html_()
    assert result.verdict.advice in html
    assert html.count("<svg") == 1
    assert "<script" not in html
    for path, page in ((tmp_path, tmp_path / "index.html"), (tmp_path / "one.html", tmp_path / "one.html")):
        assert result.report(path) == page
        assert "</html>" in page.read_text()


def test_the_same_call_reads_a_finished_study(result: StudyResult, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamas.compare.runner import inline

    monkeypatch.setattr(inline.Inline, "wait", lambda self: pytest.fail("a run was trained"))
    again = compare(line(), workers=0, out=result.summary.record.settings.out, **SMALL)
    assert again.to_json() == result.to_json()


def test_another_function_of_the_same_name_is_another_study(tmp_path: Path) -> None:
    def interrupted(seed: int, device: str) -> Job:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(interrupted, workers=0, out=tmp_path, **SMALL)


def test_an_interrupted_study_goes_on_with_the_same_call(result: StudyResult, tmp_path: Path) -> None:
    calls: list[int] = []
    made = line()

    def job(seed: int, device: str) -> Job:
        calls.append(seed)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return made(seed, device)

    with pytest.raises(KeyboardInterrupt):
        compare(job, workers=0, out=tmp_path, **SMALL)
    given = replace(result.summary.record.settings, out=tmp_path)
    before = finished(given)
    found = compare(job, workers=0, out=tmp_path, **SMALL)
    assert figures(found) == figures(result)
    after = finished(given)
    assert before
    assert {number: after[number] for number in before} == before  # what was finished was not trained again


def test_an_error_of_the_job_is_raised_with_its_cause(tmp_path: Path) -> None:
    made, calls = line(), []

    def job(seed: int, device: str) -> Job:
        calls.append(seed)
        if len(calls) > 3:  # after the look-over
            raise ZeroDivisionError("no data here")
        return made(seed, device)

    with pytest.raises(StudyError, match="no data here") as found:
        compare(job, workers=0, out=tmp_path, **SMALL)
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_check_returns_problems_as_data() -> None:
    assert check(line()) == []
    (problem,) = check(lambda seed, device: 3)
    assert "returned a int" in problem.what
    assert "Job" in problem.remedy
    made = line()

    def two_slips(seed: int, device: str) -> Job:
        return replace(made(seed, device), schedule=lambda fraction: -1.0, metric="accuracy")

    assert [problem.what.partition(" ")[0] for problem in check(two_slips)] == ['evaluate("validation")']
    (problem,) = check("no_such_file.py:job")
    assert "no_such_file.py" in problem.what
    assert check("digits", device="nowhere")[0].what


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 1}, "seeds=1 must be >= 2"),
        ({"workers": -1}, "workers=-1 must be >= 0"),
        ({"budget": "huge"}, "unknown budget 'huge'"),
        ({"margin": -1}, "margin='-1.0' must be a positive number"),
        ({"arms": ["adamw"]}, "must contain adam_l2 and adamw"),
        ({"trials": 3}, "trials=3 must be >="),
    ],
)
def test_arguments_are_refused_before_the_job_is_called(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        compare(lambda seed, device: pytest.fail("called"), out=tmp_path, **wrong)


def test_everything_exported_is_there_and_nothing_else_is() -> None:
    assert sorted(adamas.compare.__all__) == dir(adamas.compare)
    for name in adamas.compare.__all__:
        assert getattr(adamas.compare, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Crew'"):
        adamas.compare.Crew  # noqa: B018


SCRIPT = """
import torch
from torch import nn
from adamas.compare import Job, compare

def job(seed, device):
    model = nn.Linear(2, 1)
    x = torch.linspace(-1, 1, 64).reshape(32, 2)
    def loss(rows):
        return (model(x[rows]) - x[rows].sum(1, keepdim=True)).square().mean()
    return Job(model, lambda epoch: torch.randperm(32).split(16), loss,
               lambda split: {"loss": loss(torch.arange(16) + 16 * (split == "test")).item()}, epochs=2,
               steps_per_epoch=2)

result = compare(job, arms=["adam_l2", "adamw"], budget="scout", seeds=2, workers=1, out="trials", progress=False)
print(result.verdict.kind)
"""


def test_a_plain_script_needs_no_guard(tmp_path: Path) -> None:
    """It needs no `if __name__ == "__main__"`, because workers do not import the script."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() != []


def test_a_notebook_compares_its_own_function(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(adamas.__file__).parents[1])!r}]",
        dedent(SCRIPT).replace("print(result.verdict.kind)\n", ""),
        "result",
        "import pandas; table = pandas.DataFrame(result.runs); print(len(table), table.status.unique())",
        "print(result.report('page'))",
        "here = compare(job, arms='adam_l2,adamw', budget='scout', seeds=2, workers=0, out='here')\n"
        "print(here.to_json() == result.to_json())",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = book.cells[2].outputs[0].data
    assert "<svg" in shown["text/html"]
    assert "AdamW" in shown["text/plain"]
    assert "ok" in book.cells[3].outputs[0].text
    assert (tmp_path / "page" / "index.html").exists()
    assert [each.text for each in book.cells[5].outputs if each.get("name") == "stdout"] == ["True\n"]
