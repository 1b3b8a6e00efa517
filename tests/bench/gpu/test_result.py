"""The JSON, the table and the section of the docs, from made-up rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adamas.bench.result import SCHEMA, Result
from adamas.bench.table import about_gpu, report, summary
from benchmarks.render import gpu_section
from tests.bench.gpu.conftest import made_up, made_up_peak, made_up_result

ROWS = [
    made_up(),
    made_up(ratio=1.25, memory_ratio=2.0, peer="torch-foreach", limit=None, memory_limit=None),
    made_up(ratio=1.01, work="phase", memory_limit=None),
    made_up(peer="flashoptim", peer_dtype="bfloat16", figures=None, reason="not installed (flashoptim)"),
    made_up(scenario="1 x 1 G", peer="flashoptim", figures=None, reason="not installed (flashoptim)"),
]
PEAKS = [
    made_up_peak(),
    made_up_peak(later=7.3),
    made_up_peak(measured=False, reason="no room"),
]
RESULT = made_up_result([*ROWS, *PEAKS])


def shown(result: Result) -> str:
    return "\n".join(text for text, _ in report(result))


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "made" / "gpu.json")
    assert Result.read(tmp_path / "made" / "gpu.json") == RESULT
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["gpu.json"]
    data = json.loads((tmp_path / "made" / "gpu.json").read_text())
    assert (data["schema"], data["seconds"], len(data["rows"])) == (SCHEMA, 200.0, 8)
    assert data["rows"][0]["figures"]["ours"]["kernel"] == "triton"
    assert "kernel" not in data["rows"][0]["figures"]["peer"]
    assert data["rows"][5]["peak"] == {"first": 7.09, "later": 7.1, "resident": 7.05}
    assert "peak" not in data["rows"][0]


@pytest.mark.parametrize(
    ("ratio", "memory_ratio", "held"),
    [
        (1.0, 1 / 0.85, {"ratio": True, "memory": True}),
        (1.001, 1 / 0.85, {"ratio": False, "memory": True}),
        (1.0, 1 / 0.849, {"ratio": True, "memory": False}),
    ],
)
def test_verdicts_at_the_limit(ratio: float, memory_ratio: float, held: dict[str, bool]) -> None:
    assert made_up(ratio, memory_ratio).verdicts == held
    assert made_up(ratio, memory_ratio).within is all(held.values())


def test_the_first_step_counts_for_memory() -> None:
    assert made_up_peak(7.1, limit=7.1).verdicts == {"peak": True}
    assert made_up_peak(7.1, first=7.2, limit=7.1).verdicts == {"peak": False}
    assert PEAKS[2].verdicts == {}


def test_the_table_has_every_row() -> None:
    text = shown(RESULT)
    assert "16 x 64 M: a step, 7 rounds\n" in text
    assert "16 x 64 M: a phase, 7 rounds\n" in text
    assert "float32, flashoptim (bfloat16): not installed (flashoptim)" in text
    assert "24-bit masters, packed16, adamas: no room" in text
    assert "1 B transformer: memory of a step, bytes a parameter, 7 rounds" in text
    assert [line.split()[-1] for line in text.splitlines() if " torch-fused " in line] == ["within", "OVER"]
    assert [line.split()[-6:] for line in text.splitlines() if " adamas " in line] == [
        ["adamas", "7.09", "7.10", "7.05", "7.2:", "within"],
        ["adamas", "7.29", "7.30", "7.05", "7.2:", "over"],
    ]
    assert text.isascii()


def test_the_summary_names_what_is_over_its_limit() -> None:
    text = summary(RESULT)
    assert text.startswith("3 of 5 measured limits are kept; over: ")
    assert "16 x 64 M, phase, float32 beside torch-fused: ratio" in text
    assert summary(made_up_result([])) == "0 of 0 measured limits are kept."


def test_the_device_is_described() -> None:
    text = about_gpu(RESULT)
    assert text.startswith("NVIDIA H200. driver 580.1, clocks 1980 of 1980 MHz, memory 3201 MHz")
    assert "copies 6.61 TB/s" in text  # 28 bytes of 2**30 parameters in 5 ms, times 1.1
    assert "our first calls, with what is compiled then, take 3 to 3 s" in text


def test_another_kernel_than_triton_is_named() -> None:
    data = made_up().to_json()
    data["figures"]["ours"]["kernel"] = "eager"
    assert "float32 (eager)" in shown(made_up_result([type(ROWS[0]).from_json(data)]))
    assert "eager" not in shown(RESULT)


def test_rows_of_the_host_show_the_devices_part_too() -> None:
    data = made_up().to_json()
    data["figures"]["ours"]["device_seconds"] = 0.001
    assert "5 ms (1 ms)" in shown(made_up_result([type(ROWS[0]).from_json(data)]))


def test_the_section_of_the_docs_publishes_losing_rows_too() -> None:
    text = gpu_section(RESULT)
    assert text.startswith("NVIDIA H200. driver 580.1, clocks 1980 of 1980 MHz")
    assert "### 16 x 64 M: a step\n\n| format | peer | ratio |" in text
    assert "| float32 | torch-foreach | **1.25** | 1.12-1.38 | 5 ms | 4 ms | 2.00 |" in text
    assert "| 1: over |" in text
    assert "| 24-bit masters, packed16 | adamas | no room |" in text
    assert "before all rows were reached" not in text
    assert "before all rows were reached" in gpu_section(made_up_result(ROWS, complete=False))


def test_a_dry_run_is_not_published() -> None:
    with pytest.raises(ValueError, match="dry run"):
        gpu_section(made_up_result(ROWS, dry=True))
