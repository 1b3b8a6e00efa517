"""The JSON, the table and the section of the docs, from made-up rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.page import page
from benchmarks.gpu.result import SCHEMA, Result
from benchmarks.gpu.table import table
from tests.bench.gpu.conftest import made_up, made_up_peak, made_up_result

ROWS = [
    made_up(),
    made_up(ratio=1.25, bandwidth=0.5, peer="torch-foreach", limits={}),
    made_up(ratio=1.01, work="phase", limits={"ratio": 1.0}),
    made_up(peer="flashoptim", peer_dtype="bfloat16", figures=None, reason="not installed (flashoptim)"),
    made_up(scenario="1 x 1 G", peer="flashoptim", figures=None, reason="not installed (flashoptim)"),
]
RESULT = made_up_result(ROWS, [made_up_peak(), made_up_peak(later=7.3), made_up_peak(figures=None, reason="no room")])


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "made" / "gpu.json")
    assert Result.read(tmp_path / "made" / "gpu.json") == RESULT
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["gpu.json"]


def test_the_file_says_what_holds() -> None:
    data = RESULT.to_json()
    assert data["schema"] == SCHEMA
    assert data["rows"][0]["verdicts"] == {"ratio": True, "bandwidth": True}
    assert data["rows"][2]["verdicts"] == {"ratio": False}
    assert data["rows"][3]["verdicts"] == {}
    assert [row["verdicts"] for row in data["peaks"]] == [{"peak": True}, {"peak": False}, {}]


@pytest.mark.parametrize(
    ("ratio", "bandwidth", "held"),
    [
        (1.0, 0.85, {"ratio": True, "bandwidth": True}),
        (1.001, 0.85, {"ratio": False, "bandwidth": True}),
        (1.0, 0.849, {"ratio": True, "bandwidth": False}),
    ],
)
def test_verdicts_at_the_limit(ratio: float, bandwidth: float, held: dict[str, bool]) -> None:
    assert made_up(ratio, bandwidth).verdicts == held


def test_the_first_step_counts_for_memory() -> None:
    row = made_up_peak()
    assert row.figures is not None
    assert made_up_peak(limit=row.figures.later).verdicts == {"peak": True}
    assert made_up_peak(limit=row.figures.later - 1e-9).verdicts == {"peak": False}


def test_the_table_has_every_row_and_ends_with_what_was_missed() -> None:
    text = table(RESULT)
    assert "16 x 64 M: a step\n" in text
    assert "16 x 64 M: a phase\n" in text
    assert "ratio 1.00: within, bandwidth 0.85: within" in text
    assert "not installed (flashoptim): 16 x 64 M float32 flashoptim (bfloat16); 1 x 1 G float32 flashoptim" in text
    last = text.splitlines()[-1]
    assert last.startswith("complete after 200 s. 3 of 5 measured limits hold; missed: ")
    assert "16 x 64 M, phase, float32 beside torch-fused (float32): ratio" in last
    assert text.isascii()


def test_the_table_owns_up_to_an_early_end_and_to_a_dry_run() -> None:
    assert "NOT complete after 200 s." in table(made_up_result(ROWS, [], complete=False))
    assert table(made_up_result(ROWS, [], dry=True)).startswith("A DRY RUN")
    assert table(made_up_result([], [])).endswith("0 of 0 measured limits hold.")


def test_another_kernel_than_triton_is_named() -> None:
    row = made_up()
    assert row.figures is not None
    data = row.to_json()
    data["figures"]["ours"]["kernel"] = "eager"
    assert "float32 (eager)" in table(made_up_result([type(row).from_json(data)], []))
    assert "eager" not in table(RESULT)


def test_the_section_of_the_docs_publishes_losing_rows_too() -> None:
    text = page(RESULT)
    assert text.startswith("## On a GPU\n\nNVIDIA H200. driver 580.1, clocks after the ceilings: 1980 of 1980 MHz")
    assert "our first calls, with what is compiled then, 3 to 3 s" in text
    assert "### 16 x 64 M: a step\n\n| format | peer | ratio |" in text
    assert "| float32 | torch-foreach | 1.250 | 1.125-1.375 | 5 ms | 4 ms | 50% / 62% |" in text
    assert "ratio 1.00: MISSED |" in text
    assert "- no room: 1 B transformer 24-bit masters, packed16 adamas" in text


def test_the_section_of_the_docs_without_a_result_says_so() -> None:
    assert "Nothing was measured on a GPU yet" in page(None)
    assert "`make gpu`" in page(None)


def test_a_dry_run_is_not_published() -> None:
    with pytest.raises(ValueError, match="dry run"):
        page(made_up_result(ROWS, [], dry=True))
