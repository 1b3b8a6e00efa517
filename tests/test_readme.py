"""The README's and the docs' figures are those of the results, and their files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adamas.bench.result import Result
from benchmarks import render
from benchmarks.scenarios import FRONTS, LIMITED, SCENARIOS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = render.read_all("cpu")


def test_benchmark_table_is_the_result_file() -> None:
    assert render.readme(README, RESULTS) == README, "run python -m benchmarks.render"
    assert all(render.measured_on(result) in README for result in RESULTS)
    chinese = render.README_ZH.read_text()
    assert render.readme_zh(chinese, RESULTS) == chinese, "run python -m benchmarks.render"


def test_benchmark_page_is_the_result_file() -> None:
    on_gpu = Result.read(render.GPU) if render.GPU.exists() else None
    page = render.PAGE.read_text()
    assert render.page(page, RESULTS, on_gpu) == page, "run python -m benchmarks.render"
    assert render.fronts(page, render.read_all("fronts")) == page, "run python -m benchmarks.render"


def test_benchmark_figure_is_the_result_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    render.draw(RESULTS, tmp_path / "again.svg")
    labels = [
        set(re.findall(r">([^<>]*\S[^<>]*)</text>", path.read_text()))
        for path in (tmp_path / "again.svg", render.FIGURE)
    ]
    assert labels[0] == labels[1], "run python -m benchmarks.render"


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.machine["processor"])
def test_results_are_of_all_scenarios(result: Result) -> None:
    assert result.complete
    measured = {(row.scenario, row.dtype, row.work) for row in result.rows}
    assert measured == {(scenario.name, scenario.dtype, scenario.work) for scenario in SCENARIOS}


def test_results_are_within_their_limits() -> None:
    """Limits were set on one processor; the pages show how others keep them."""
    (result,) = (result for result in RESULTS if result.machine["processor"] == LIMITED)
    limited = [row for row in result.rows if row.limit is not None]
    assert limited
    assert [row for row in limited if not row.within] == []
    assert [row for row in limited if row.disturbed] == [], "measure again on a quiet machine"


def test_results_of_fronts_are_complete_and_within_their_limits() -> None:
    wanted = {(scenario.name, scenario.work, peer) for scenario in FRONTS for peer in scenario.peers}
    for result in render.read_all("fronts"):
        assert result.complete
        assert {(row.scenario, row.work, row.peer) for row in result.rows} == wanted
        if result.machine["processor"] == LIMITED:
            assert [str(row) for row in result.rows if row.within is False or row.figures is None] == []
            assert [str(row) for row in result.rows if row.disturbed] == [], "measure again on a quiet machine"


@pytest.mark.parametrize("path", [render.README, render.README_ZH, render.PAGE], ids=lambda path: path.name)
def test_links_and_figures_exist(path: Path) -> None:
    local = [target for target in re.findall(r"\]\(([^)]+)\)", path.read_text()) if not target.startswith("http")]
    assert local
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_commands_named_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
