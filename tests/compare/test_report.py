from __future__ import annotations

import base64
import csv
import io
import json
import math
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from adamas.compare.contract import to_json
from adamas.compare.margin import Margin
from adamas.compare.report import write_report
from adamas.compare.report.page import render
from adamas.compare.result import StudyResult, summarise
from adamas.compare.table import print_verdict
from tests.compare.tiny_job import RUNS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a page refers to, the ids it has, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.references += [found[name] for name in ("src", "href", "action", "data", "poster") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        self._script = found.get("id", "code") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.fixture(scope="module")
def page(tiny_result: StudyResult) -> Page:
    return Page(render([tiny_result]))


def test_the_page_refers_to_nothing_outside(page: Page) -> None:
    assert page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "plotly.js v" in page.scripts["code"]


def test_the_page_says_what_matters(page: Page, tiny_result: StudyResult) -> None:
    assert tiny_result.verdict.advice in page.text
    for code in tiny_result.code:
        for part in code.split("; "):
            assert part in page.text
    assert "adamas compare tiny --budget tiny --seeds 3 --margin 2%" in page.text
    assert "1000 to 1002" in page.text
    for name, arm in tiny_result.arms.items():
        assert f"{arm.test['loss'].mean:.4f}" in page.text
        if name != "none":
            assert f"{arm.winner.weight_decay:.3g}" in page.text
            assert f"{arm.weight_decay_independent:.3g}" in page.text


def test_every_figure_has_its_place_and_a_common_scale(page: Page) -> None:
    figures = json.loads(page.scripts["figures"])
    assert set(figures) == {f"tiny-{name}" for name in ("map-none", "map-adam_l2", "map-adamw", "seeds", "differences")}
    assert set(figures) <= set(page.ids)
    scales = {
        (trace["zmin"], trace["zmax"]) for f in figures.values() for trace in f["data"] if trace["type"] == "heatmap"
    }
    assert len(scales) == 1


def test_the_csv_holds_every_run(page: Page, tiny_result: StudyResult) -> None:
    encoded = next(reference for reference in page.references if reference.startswith("data:text/csv"))
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(encoded.split(",", 1)[1]).decode())))
    assert len(rows) == RUNS
    assert all((row["test_loss"] != "") == (row["stage"] == "final") for row in rows)
    finals = [float(row["test_loss"]) for row in rows if row["stage"] == "final" and row["arm"] == "adamw"]
    assert tuple(finals) == tiny_result.arms["adamw"].test["loss"].values


def test_names_are_escaped(tiny_result: StudyResult) -> None:
    settings = tiny_result.record.settings
    workload = replace(settings.workload, summary="<script>alert(1)</script>")
    record = replace(tiny_result.record, settings=replace(settings, workload=workload))
    assert "<script>alert" not in render([replace(tiny_result, record=record)])


def test_the_page_is_written_whole_or_not_at_all(
    tiny_result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(tiny_result.record.settings, out=tmp_path / "new" / "folder")
    result = replace(tiny_result, record=replace(tiny_result.record, settings=settings))
    page = write_report([result])
    assert page == tmp_path / "new" / "folder" / "index.html"
    before = page.read_text()

    def fail(results: list[StudyResult]) -> str:
        raise RuntimeError("half way")

    monkeypatch.setattr("adamas.compare.report.page.render", fail)
    with pytest.raises(RuntimeError, match="half way"):
        write_report([result])
    assert page.read_text() == before
    assert [entry.name for entry in page.parent.iterdir()] == ["index.html"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_figures_draw_without_console_errors(tiny_result: StudyResult, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(render([tiny_result]), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    quiet = "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=10000"
    found = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            *quiet.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in found.stderr
    assert found.stdout.count('class="main-svg"') >= 5


def test_the_json_is_the_contract(tiny_result: StudyResult) -> None:
    printed = json.loads(json.dumps(to_json([tiny_result]), allow_nan=False))
    assert printed["schema"] == 1
    (study,) = printed["studies"]
    assert set(study) == {"workload", "metric", "margin", "seeds", "verdict", "difference", "arms"}
    assert (study["workload"], study["metric"], study["margin"], study["seeds"]) == ("tiny", "loss", 0.02, 3)
    assert set(study["verdict"]) == {"kind", "text", "more_seeds"}
    assert set(study["difference"]) == {"mean", "low", "high", "relative", "p_sign_flip", "p_better"}
    assert set(study["arms"]) == {"none", "adam_l2", "adamw"}
    for arm in study["arms"].values():
        assert set(arm) == {
            "lr",
            "weight_decay",
            "weight_decay_independent",
            "trials",
            "infeasible",
            "validation",
            "test",
        }
        assert set(arm["validation"]) == {"mean", "sd"}
        assert set(arm["test"]) == {"loss"}
        assert set(arm["test"]["loss"]) == {"mean", "sd", "values"}
        assert arm["weight_decay_independent"] == arm["lr"] * arm["weight_decay"]
        values = arm["test"]["loss"]["values"]
        assert len(values) == 3
        assert arm["test"]["loss"]["mean"] == pytest.approx(sum(values) / 3)


def test_an_absolute_margin_gives_absolute_differences(tiny_result: StudyResult) -> None:
    settings = replace(tiny_result.record.settings, margin=Margin(0.5, relative=False))
    result = summarise(replace(tiny_result.record, settings=settings))
    tests = [result.arms[arm].test["loss"].mean for arm in ("adamw", "adam_l2")]
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(tests[0] - tests[1])
    study = to_json([result])["studies"][0]
    assert (study["margin"], study["difference"]["relative"]) == (0.5, False)
    assert "%" not in result.verdict.evidence.replace("95 %", "")


def diverged(result: StudyResult) -> StudyResult:
    """The same study, had a finalist of AdamW diverged."""
    victim = result.record.winners["adamw"].finals(3)[1]
    outcome = replace(result.record.outcomes[victim], feasible=False, validation={}, test=None)
    return summarise(replace(result.record, outcomes={**result.record.outcomes, victim: outcome}))


def test_a_diverged_finalist_leaves_it_undecided(tiny_result: StudyResult) -> None:
    result = diverged(tiny_result)
    assert result.verdict.kind == "undecided"
    assert "AdamW diverged on a fresh seed" in result.verdict.text
    study = json.loads(json.dumps(to_json([result]), allow_nan=False))["studies"][0]
    assert study["difference"]["mean"] is None
    assert study["arms"]["adamw"]["test"] == {}
    assert study["arms"]["adamw"]["infeasible"] == tiny_result.arms["adamw"].infeasible + 1
    assert "AdamW diverged" in Page(render([result])).text


def test_inert_decay_is_warned_of(tiny_result: StudyResult) -> None:
    """Outcomes as if every run had been far too short for decay."""
    outcomes = {
        cell: replace(outcome, total_decay=1e-6 * outcome.total_decay)
        for cell, outcome in tiny_result.record.outcomes.items()
    }
    warnings = summarise(replace(tiny_result.record, outcomes=outcomes)).warnings
    assert any("Decay is inert in AdamW" in warning and "too short" in warning for warning in warnings)
    strong = {cell: replace(outcome, total_decay=5.0) for cell, outcome in tiny_result.record.outcomes.items()}
    assert not any("inert" in text for text in summarise(replace(tiny_result.record, outcomes=strong)).warnings)


def test_the_terminal_shows_both_conventions_and_unbroken_code(tiny_result: StudyResult) -> None:
    text = io.StringIO()
    print_verdict(Console(file=text, width=80), tiny_result)
    shown = text.getvalue()
    winner = tiny_result.arms["adamw"].winner
    assert f"{winner.weight_decay:.3g}" in shown
    assert f"{tiny_result.arms['adamw'].weight_decay_independent:.3g}" in shown
    for code in tiny_result.code:
        assert code in shown.splitlines()
    assert not any(math.isnan(arm.validation.mean) for arm in tiny_result.arms.values())
    assert max(len(line) for line in shown.splitlines() if "│" in line) <= 80
