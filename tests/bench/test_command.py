"""The command line, its files and its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adamas.bench import command
from adamas.bench.clock import Effort
from adamas.bench.command import choose_peers
from adamas.bench.device import Cpu
from adamas.bench.peers import PEERS
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario
from adamas.bench.table import columns, report
from adamas.cli import FRONTS, app
from tests.bench.conftest import BRIEF, row

ROW_KEYS = {
    "scenario", "work", "dtype", "tensors", "parameters", "peer", "versions", "limit", "memory_limit", "figures",
    "reason",
}  # fmt: skip
FIGURE_KEYS = {"ours", "peer", "ratio", "lowest", "highest", "memory_ratio", "others"}


def invoke(*arguments: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Scenario, str, Effort]]:
    """Let rows be there at once; what was asked for is returned."""
    asked: list[tuple[Scenario, str, Effort]] = []

    def conduct(scenario: Scenario, name: str, effort: Effort) -> Row:
        asked.append((scenario, name, effort))
        return replace(Row.of(scenario, name, {"torch": "2.0"}), figures=row().figures)

    monkeypatch.setattr(command, "least_disturbed", conduct)
    return asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "apex"), "unknown peer 'apex'; the known ones are: torch-fused"),
        (("--shapes", "20x20"), "shapes='20x20': '20x20' is no shape"),
        (("--model", "nowhere.py:make"), "there is no file nowhere.py"),
        (("--model", "a.py:f", "--shapes", "(3)"), "give either"),
        (("--dtype", "int8"), "dtype='int8' is not measured"),
        (("--rounds", "3"), "rounds=3 must be >= 5"),
        (("--threads", "0"), "threads=0 must be >= 1"),
        (("--out", "/proc/nowhere/rows.json"), "/proc/nowhere"),
    ],
)
def test_usage_errors_exit_with_2(measured: list, arguments: tuple[str, ...], message: str) -> None:
    found = invoke(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stdout == ""
    assert not measured


def test_help_teaches() -> None:
    shown = " ".join(invoke("--help").stdout.split())
    for part in ("--model train.py:make_model --phase", "Ctrl-C", "--peers installed", "Exit codes"):
        assert part in shown


def test_help_names_the_fronts() -> None:
    assert [name for name, peer in PEERS.items() if peer.ours is not None] == list(FRONTS)
    shown = "".join(invoke("--help").stdout.split())
    assert all(name in shown for name in FRONTS)


def test_a_small_set_is_the_default(measured: list) -> None:
    assert invoke().exit_code == 0
    assert {(scenario.dtype, scenario.work) for scenario, _, _ in measured} == {("float32", "step")}
    assert len({scenario.name for scenario, _, _ in measured}) == 3
    assert {peer for _, peer, _ in measured} == {"torch-fused", "torch"}


def test_json_is_all_there_is_on_standard_output(measured: list, tmp_path: Path) -> None:
    out = tmp_path / "folder" / "rows.json"
    found = invoke("--shapes", "2x(3)", "--phase", "--peers", "torch", "--json", "--out", str(out))
    assert found.exit_code == 0
    result = json.loads(found.stdout)
    assert result == json.loads(out.read_text())
    assert set(result) == {"schema", "versions", "machine", "rounds", "complete", "rows"}
    (only,) = result["rows"]
    assert set(only) == ROW_KEYS
    assert set(only["figures"]) == FIGURE_KEYS
    assert set(only["figures"]["ours"]) == {"seconds", "error_ulps", "state_bytes"}
    assert (only["scenario"], only["work"], only["tensors"], only["parameters"]) == ("2x(3)", "phase", 2, 6)
    assert Result.read(out).to_json() == result


def test_stopping_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def conduct(scenario: Scenario, name: str, effort: Effort) -> Row:
        if name == "torch-foreach":
            raise KeyboardInterrupt
        return replace(Row.of(scenario, name, {}), figures=row().figures)

    monkeypatch.setattr(command, "least_disturbed", conduct)
    out = tmp_path / "rows.json"
    found = invoke("--shapes", "(3)", "--peers", "torch,torch-foreach,torch-fused", "--out", str(out))
    assert found.exit_code == 130
    assert f"what was finished (1) is shown and kept in {out}" in found.stderr
    assert "0.250" in found.stdout
    kept = Result.read(out)
    assert not kept.complete
    assert [each.peer for each in kept.rows] == ["torch"]


def test_the_table_names_what_has_no_figures_and_what_is_doubtful() -> None:
    busy = row("torch")
    assert busy.figures is not None
    rows = [row(), row("flashoptim", reason="refuses: no CUDA [here]"), row("optax", ratio=0.75)]
    rows.append(replace(busy, figures=replace(busy.figures, others=0.4)))
    result = Result.of(Cpu(), BRIEF)
    result.rows += rows
    text = "\n".join(text for text, _ in report(result))
    for part in ("tiny: a step in float32", "flashoptim: refuses: no CUDA [here]", "up to 40% of the machine"):
        assert part in text
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("torch-fused")] == [
        ["torch-fused", "0.250"]
    ]
    assert "within" in text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    shown = columns(("peer", "ratio"), [("torch", "0.5"), ("torch-fused", "10.25")])
    assert shown.splitlines() == ["peer        ratio", "torch         0.5", "torch-fused 10.25"]


def test_peers_are_chosen_by_name() -> None:
    assert choose_peers("torch, torch-fused") == ["torch", "torch-fused"]
    assert {"torch", "torch-foreach", "torch-fused"} <= set(choose_peers("installed"))
    assert len(choose_peers("all")) == 17


def test_a_limit_is_kept_or_not() -> None:
    assert row(ratio=0.25).within is True
    assert row(ratio=0.75).within is False
    assert row("torch").within is None
    assert row(reason="refuses").within is None
