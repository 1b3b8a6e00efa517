"""What the build passes to the compiler, read from the files that CMake writes without compiling anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAST = ("-ffast-math", "-Ofast", "-funsafe-math-optimizations")


@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("c++"), reason="needs cmake and a C++ compiler")
def test_fast_math_of_the_user_does_not_reach_the_kernel(tmp_path: Path) -> None:
    """Neither at the compiler, where it changes bits, nor at the link, where it brings crtfastmath.o."""
    nanobind = pytest.importorskip("nanobind")
    configured = subprocess.run(
        [
            "cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-G", "Unix Makefiles",
            f"-Dnanobind_DIR={nanobind.cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
            "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        ],
        env={**os.environ, "CXXFLAGS": " ".join((*FAST, *FAST, "-fassociative-math")), "LDFLAGS": "-Ofast"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert configured.returncode == 0, configured.stderr
    lines = [entry["command"].split() for entry in json.loads((tmp_path / "compile_commands.json").read_text())]
    kernel = [line for line in lines if "adamas_kernel" in " ".join(line)]
    assert len(kernel) >= 3
    for line in lines:
        assert not set(line) & set(FAST)
    for line in kernel:
        assert "-O3" in line
        for flag in ("-fno-associative-math", "-fno-fast-math", "-ffp-contract=off"):
            assert line.index(flag) > line.index("-fassociative-math")
    links = list(tmp_path.glob("CMakeFiles/_native.dir/link.txt"))
    assert links
    assert not set(links[0].read_text().split()) & set(FAST)
