"""Pages made of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario
from adamas.cli import FRONTS
from benchmarks import render, run
from tests.bench.conftest import BRIEF, row

ROWS = [row(), row("optax", ratio=1.5), row("flashoptim", reason="refuses: a | b")]


def made(rows: list[Row], processor: str = "Intel(R) Xeon(R) Processor") -> Result:
    result = Result.of(Cpu(), BRIEF)
    for each in rows:
        result.add(each)
    result.machine["processor"] = processor
    result.complete = True
    return result


RESULT = made(ROWS)
MARKS = "".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in ("machines", "rows", "gpu"))
OTHER = made([row(ratio=0.3)], "AMD EPYC")


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "rows.json")
    assert Result.read(tmp_path / "rows.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_the_readme_is_filled_between_its_marks() -> None:
    before = "a\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nb\n"
    after = render.readme(before, [RESULT])
    assert after.startswith("a\n<!-- benchmark -->")
    assert after.endswith("<!-- /benchmark -->\nb\n")
    assert "| step | tiny | **0.25** | 0.12-0.50 | 100 us | 400 us | 1.5 / 2.5 |" in after
    assert "old" not in after
    assert render.readme(after, [RESULT]) == after


def test_the_page_has_all_rows_losing_ones_too() -> None:
    page = render.page(MARKS, [RESULT])
    assert "## tiny: a step in float32" in page
    assert "| torch-fused | **0.25** |" in page
    assert "0.5: within |" in page
    assert "| optax | **1.50** |" in page
    assert "| flashoptim | refuses: a \\| b |" in page


def test_each_processor_has_rows_under_its_name() -> None:
    both = [OTHER, RESULT]
    page, readme = render.page(MARKS, both), render.readme("<!-- benchmark -->\n<!-- /benchmark -->", both)
    assert page.count("## tiny: a step in float32") == 1
    assert "| processor | peer | ratio |" in page
    assert "| AMD EPYC | torch-fused | **0.30** |" in page
    assert "| Intel(R) Xeon(R) Processor | torch-fused | **0.25** |" in page
    assert "| AMD EPYC | step | tiny | **0.30** |" in readme
    for text in (page, readme):
        assert f"torch {RESULT.versions['torch']}, AMD EPYC, 1 threads" in text
        assert f"torch {RESULT.versions['torch']}, Intel(R) Xeon(R) Processor, 1 threads" in text


def test_a_processor_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    for result in (RESULT, OTHER):
        result.write(run.path_of("cpu", result.machine["processor"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu-amd-epyc.json", "cpu-intel-xeon.json"]
    assert render.read_all("cpu") == [OTHER, RESULT]
    assert render.read_all("lean") == []
    assert run.path_of("lean", "AMD EPYC 9354 32-Core Processor").name == "lean-amd-epyc-9354-32-core.json"


def test_lean_rows_have_a_line_a_storage() -> None:
    rows = [replace(row(peer, ratio=ratio), scenario="16 x 1 M, packed16", limit=None) for peer, ratio in
            zip(render.LEAN_PEERS, (1.2, 0.05, 0.02), strict=True)]  # fmt: skip
    assert render.lean(made(rows)) == [
        ("packed16", "float32", "8", "**1.20**", "**0.050** (20 x)", "**0.020** (50 x)", "1.10")
    ]


def test_rows_of_fronts_show_the_first_call() -> None:
    plain, compiled = replace(row("numpy"), limit=0.2), replace(row("keras-fit"), first_limit=2.0)
    assert compiled.figures is not None
    sides = {name: replace(getattr(compiled.figures, name), first_seconds=x) for name, x in (("ours", 3), ("peer", 2))}
    compiled = replace(compiled, figures=replace(compiled.figures, **sides), work="ten steps")
    page = render.fronts("<!-- fronts -->\n<!-- /fronts -->", [made([plain, compiled, row("jax-adamw", reason="no")])])
    assert "| numpy | tiny | step | **0.25** |" in page
    assert "| 8 / 8 |  | 0.2: over |" in page
    assert "| keras-fit | tiny | ten steps | **0.25** |" in page
    assert "| 8 / 8 | 1.50 | first call 2: within |" in page
    assert "| jax-adamw | tiny | step | no |" in page
    assert replace(compiled, first_limit=1.4).within is False
    assert compiled.heading == "tiny: ten steps in one call in float32"
    assert Row.from_json(compiled.to_json()) == compiled
    assert render.NO_FRONTS in render.fronts(page, [])


def test_the_rows_of_fronts_are_measured_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[list[Scenario], Path]] = []

    def bench(scenarios: list[Scenario], peers: list[str], effort: Effort, consoles: object, out: Path) -> Result:
        asked.append((scenarios, out))
        return RESULT

    monkeypatch.setattr(run, "bench", bench)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    for arguments in ({}, {"lean": True}, {"fronts": True}):
        with pytest.raises(typer.Exit):
            run.main(rounds=5, peers="all", out=None, **arguments)
    kinds = [path.name.partition("-")[0] for _, path in asked]
    assert kinds == ["cpu", "lean", "fronts"]
    fronts = [{peer for scenario in scenarios for peer in scenario.peers} & set(FRONTS) for scenarios, _ in asked]
    assert fronts == [set(), set(), set(FRONTS)]
    with pytest.raises(typer.BadParameter, match="different files"):
        run.main(rounds=5, peers="all", lean=True, fronts=True, out=None)


def test_the_figure_repeats(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        render.draw([RESULT], tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "1.50" not in drawn  # 0.667 x ours: the bars are times, not ratios
    assert "0.667 x ours" in drawn
    assert "Intel" not in drawn


def test_the_figure_names_the_processors_where_there_are_several(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    render.draw([OTHER, RESULT], tmp_path / "both.svg")
    drawn = (tmp_path / "both.svg").read_text()
    assert "tiny: a step in float32, AMD EPYC" in drawn
    assert "tiny: a step in float32, Intel(R) Xeon(R) Processor" in drawn
