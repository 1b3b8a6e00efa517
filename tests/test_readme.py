"""The README's figures are those of the results, and its files exist."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_benchmark_table_is_the_result_file() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    result = json.loads((ROOT / "benchmarks/results/step-cpu.json").read_text())
    assert readme.table(result) in README, "run python benchmarks/readme.py"
    within = [row["ratio"] <= row["limit"] for row in result["rows"] if row["limit"] is not None]
    assert len(within) == 3
    assert all(within)


def test_links_and_figures_exist() -> None:
    local = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_commands_named_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
