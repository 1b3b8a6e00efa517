"""Pages made of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from adamas.bench.result import Result
from benchmarks import render
from tests.bench.conftest import BRIEF, row

RESULT = Result.of([row(), row("optax", ratio=1.5), row("flashoptim", reason="refuses: a | b")], BRIEF, complete=True)


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "rows.json")
    assert Result.read(tmp_path / "rows.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_the_readme_is_filled_between_its_marks() -> None:
    before = "a\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nb\n"
    after = render.filled(before, RESULT)
    assert after.startswith("a\n<!-- benchmark -->")
    assert after.endswith("<!-- /benchmark -->\nb\n")
    assert "| step | tiny | **0.25** | 0.12-0.50 | 100 us | 400 us | 1.5 / 2.5 |" in after
    assert "old" not in after
    assert render.filled(after, RESULT) == after


def test_the_page_has_all_rows_losing_ones_too() -> None:
    page = render.page(RESULT)
    assert "## tiny: a step in float32" in page
    assert "| torch-fused | **0.25** |" in page
    assert "0.5: within |" in page
    assert "| optax | **1.50** |" in page
    assert "| flashoptim | refuses: a \\| b |" in page


def test_the_figure_repeats(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        render.draw(RESULT, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert "1.50" not in drawn  # 0.667 x ours: the bars are times, not ratios
    assert "0.667 x ours" in drawn
