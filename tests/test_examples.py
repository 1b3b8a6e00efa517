"""Each example is short, complete and runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
    result = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    accuracy = re.search(r"test accuracy ([\d.]+)%", result.stdout)
    assert accuracy is not None
    assert float(accuracy.group(1)) > 95
