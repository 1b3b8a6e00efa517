"""The same bits on a processor this machine does not have: NEON, cross-compiled and emulated where the tools are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
FLAGS = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", f"-I{NATIVE}"]
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def hashes(compiler: str, isas: list[str], folder: Path, run: list[str]) -> dict[str, str]:
    """Build the instruction sets and bits.cpp, run it, and return the hash that each printed."""
    sources = [str(NATIVE / f"step_{isa}.cpp") for isa in isas] + [str(Path(__file__).with_name("bits.cpp"))]
    program = folder / f"bits-{isas[0]}"
    subprocess.run([compiler, *FLAGS, *sources, "-static", "-o", str(program)], check=True)
    printed = subprocess.run([*run, str(program)], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in printed.splitlines())


@pytest.mark.skipif(not all(map(shutil.which, ("g++", CROSS, EMULATOR))), reason=f"needs {CROSS} and {EMULATOR}")
def test_neon_gives_the_same_bits(tmp_path: Path) -> None:
    here = hashes("g++", ["scalar"], tmp_path, [])
    there = hashes(CROSS, ["neon", "scalar"], tmp_path, [EMULATOR])
    assert set(there) == {"neon", "scalar"}
    assert set(there.values()) == {here["scalar"]}


@pytest.mark.skipif(not shutil.which(CROSS), reason=f"needs {CROSS}")
def test_neon_is_vectorised_and_not_contracted(tmp_path: Path) -> None:
    library = tmp_path / "neon.o"
    subprocess.run([CROSS, *FLAGS, "-c", str(NATIVE / "step_neon.cpp"), "-o", str(library)], check=True)
    assembly = subprocess.run(
        ["aarch64-linux-gnu-objdump", "-d", str(library)], check=True, capture_output=True, text=True
    ).stdout
    assert "fsqrt\tv" in assembly
    assert "fmla" not in assembly
    assert "fmadd" not in assembly
