"""`adamas claims`: the JSON, the table, the page, both languages, failures, Ctrl-C, and the same figures twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from adamas.cli import app
from adamas.understand.claims import registry
from adamas.understand.claims.claim import Claim, exact, say_in
from adamas.understand.claims.command import Output, run_command
from adamas.understand.claims.page import make_page
from adamas.understand.claims.recipes import alike, formula, moments
from adamas.understand.claims.run import Failure, Measured, measure

KEYS = ["number", "source", "article_zh", "article_en", "verdict", "value", "low", "high", "text", "seconds"]
# Recipes that are measured in a second or two at a small size, by their number.
SMALL = {8: lambda: formula.measure(steps=20), 9: lambda: moments.measure(steps=60, seeds=2),
         10: lambda: alike.measure(steps=30)}  # fmt: skip


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["claims", *arguments])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three claims at a small size in place of all twenty."""
    claims = {number: replace(registry.CLAIMS[number], measure=run) for number, run in SMALL.items()}
    monkeypatch.setattr(registry, "CLAIMS", claims)


def breaks() -> Any:
    raise RuntimeError("the experiment [broke]")


def stopped() -> Any:
    raise KeyboardInterrupt


def test_the_table_has_twenty_claims() -> None:
    assert list(registry.CLAIMS) == list(range(1, 21))
    for claim in registry.CLAIMS.values():
        assert re.search("[\u4e00-\u9fff]", claim.article_zh)
        assert re.search("[\u4e00-\u9fff]", claim.rule_zh)
        assert claim.article_en.isascii()
        assert "arXiv" in claim.source or claim.number <= 13


def test_help_teaches() -> None:
    shown = " ".join(invoke("--help").stdout.split())
    for part in ("adamas claims --only 1-13", "adamas claims --only 3,9", "Ctrl-C", "Exit codes"):
        assert part in shown


@pytest.mark.parametrize("only", ["0", "21", "nine", "9,", "", "3-1", "-1", "1-99999", "９"])
def test_a_number_that_is_no_claim_is_refused(only: str) -> None:
    result = invoke("--only", only)
    assert result.exit_code == 2
    assert "must be a number from 1 to 20 or a range" in result.stderr


def test_an_unknown_language_is_refused() -> None:
    result = invoke("--only", "10", "--lang", "fr")
    assert result.exit_code == 2
    assert "lang='fr' must be en or zh" in result.stderr


def test_claims_are_chosen_in_several_ways() -> None:
    assert [claim.number for claim in registry.chosen(["9", "3"])] == [3, 9]
    assert [claim.number for claim in registry.chosen(["9,3", "1-2"])] == [1, 2, 3, 9]
    assert len(registry.chosen([])) == 20


@pytest.mark.usefixtures("small")
def test_the_json_is_the_contract_and_nothing_else_is_printed() -> None:
    result = invoke("--json", "--lang", "en")
    found = json.loads(result.stdout)
    assert (result.exit_code, list(found), found["schema"]) == (0, ["schema", "claims"], 1)
    for each in found["claims"]:
        assert list(each) == KEYS
        assert each["verdict"] in ("holds", "conditional", "does_not_hold")
        assert each["low"] <= each["value"] <= each["high"]
    verdicts = [each["verdict"] for each in found["claims"]]
    assert verdicts == ["conditional", "does_not_hold", "holds"]


@pytest.mark.usefixtures("small")
def test_two_runs_give_the_same_figures_on_any_number_of_threads() -> None:
    runs: list[Any] = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        found = json.loads(invoke("--json", "--lang", "en").stdout)["claims"]
        runs.append([{key: value for key, value in each.items() if key != "seconds"} for each in found])
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert runs[0] == runs[1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("lang", "words"), [("en", "does not hold"), ("zh", "不成立")])
def test_the_table_speaks_both_languages(lang: str, words: str) -> None:
    result = invoke("--only", "9", "--lang", lang)
    assert result.exit_code == 0
    assert words in result.stdout
    assert "-0.5" in result.stdout


@pytest.mark.usefixtures("small")
def test_a_claim_that_fails_is_told_and_loses_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(registry.CLAIMS, 9, replace(registry.CLAIMS[9], measure=breaks))
    result = invoke("--json", "--lang", "en", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert [each["number"] for each in json.loads(result.stdout)["claims"]] == [8, 10]
    sentence = "claim 9 was not measured: RuntimeError: the experiment [broke]"
    assert sentence in result.stderr
    assert sentence in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("small")
def test_ctrl_c_shows_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.CLAIMS, 10, replace(registry.CLAIMS[10], measure=stopped))
    result = invoke("--json", "--lang", "en")
    assert result.exit_code == 130
    assert [each["number"] for each in json.loads(result.stdout)["claims"]] == [8, 9]
    assert "2 of 3 claims were finished and are shown" in result.stderr


def claim_with(run: Any) -> Claim:
    return replace(registry.CLAIMS[10], measure=run)


def test_a_missing_package_is_named() -> None:
    def needs() -> Any:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets")

    found = measure(claim_with(needs), "en")
    assert isinstance(found, Failure)
    assert found.reason == "it needs sklearn, which is not installed: pip install 'adamas[compare]'"


def test_a_figure_that_is_not_finite_is_no_result() -> None:
    found = measure(claim_with(lambda: alike.Alike(float("nan"), 1.0, {"adamw": [1.0] * 13, "l2": [1.0] * 13})), "en")
    assert isinstance(found, Failure)
    assert "must be finite" in found.reason


@pytest.mark.usefixtures("small")
def test_a_place_that_cannot_be_written_is_refused_before_the_experiments(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("--out", str(tmp_path / "file" / "claims"))
    assert result.exit_code == 2
    assert "must be a folder that you may write to" in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    """The three small claims in English."""
    found = [measure(replace(registry.CLAIMS[number], measure=run), "en") for number, run in SMALL.items()]
    assert all(isinstance(each, Measured) for each in found)
    return [each for each in found if isinstance(each, Measured)]


def test_the_page_has_a_section_with_both_languages_for_each_claim(measured: list[Measured]) -> None:
    page = make_page(measured, [], "en")
    assert page.title == "3 claims about Adam and AdamW: 1 hold, 1 under a condition, 1 not"
    overview, *sections = page.sections
    assert [row[0] for row in overview.tables[0].rows] == [8, 9, 10]
    for each, section in zip(measured, sections, strict=True):
        assert any(each.claim.article_zh in paragraph for paragraph in section.paragraphs)
        assert any(each.claim.article_en in paragraph for paragraph in section.paragraphs)
        assert section.figures[0].plot["data"]
        assert section.code == f"adamas claims --only {each.claim.number}"


def test_the_plots_are_json(measured: list[Measured]) -> None:
    for each in measured:
        assert json.loads(json.dumps(each.told.plot, allow_nan=False)) == each.told.plot


def test_names_are_shown_as_text(measured: list[Measured], tmp_path: Path) -> None:
    hostile = replace(measured[0].claim, source='<script>alert("1")</script>')
    output = Output(*consoles(), "en", folder=tmp_path)
    run_command([replace(hostile, measure=SMALL[8])], output)
    assert "<script>alert" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def consoles() -> tuple[Any, Any]:
    import io

    from rich.console import Console

    return Console(file=io.StringIO()), Console(file=io.StringIO())


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, without those that are written as words in the other language."""
    return Counter(re.findall(r"(?<![A-Za-z])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?", text))


@pytest.mark.parametrize("number", SMALL)
def test_both_languages_say_the_same_numbers(number: int) -> None:
    claim = registry.CLAIMS[number]
    found = SMALL[number]()
    english, chinese = (claim.tell(found, say_in(lang)).text for lang in ("en", "zh"))
    assert numbers(english) == numbers(chinese)
    assert not re.search("[\u4e00-\u9fff]", english)


def test_the_command_imports_torch_only_when_it_runs() -> None:
    code = "import sys, adamas.cli; print([name for name in ('torch', 'plotly', 'scipy') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_exact_figure_has_an_interval_of_no_width() -> None:
    assert (str(exact(0.001)), str(replace(exact(2.0), low=1.5))) == ("0.001", "2 [1.5, 2]")
