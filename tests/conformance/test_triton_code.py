"""What Triton makes of the kernels for NVIDIA GPUs, read: no GPU is needed to compile for one.

That operations are rounded one by one, as on the CPU, can be seen in the code, and so can what would make it slow.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from adamas.kernels import triton as kernel
from adamas.kernels.bucket import PLAIN, Storage
from adamas.scalars import Hyper, StepScalars
from tests.conftest import INTERPRETED

pytestmark = [
    pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing())),
    pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing"),
]

MASTERS = Storage("packed16", 24, True)
KINDS = [
    ("float32", PLAIN),
    ("float32", Storage("packed16")),
    ("bfloat16", MASTERS),
    ("bfloat16", Storage("packed12", 24, True)),
    ("float16", Storage("bfloat16", None, True)),
]


@cache
def compiled(dtype: str, storage: Storage, capability: int = 90, **options: Any) -> Any:
    """The step, compiled as `triton.step` launches it."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from adamas.kernels.bucket import Bucket
    from adamas.kernels.gpu.arguments import Scalars, Tables, gather
    from adamas.kernels.gpu.step import step

    bucket = Bucket([torch.zeros(1, dtype=getattr(torch, dtype))], [{}], storage)
    scalars = StepScalars.of(Hyper(weight_decay=0.1, decay="lr"), 1, seed=1)
    chosen = gather(bucket, [scalars], None).options._replace(**options)
    signature = {
        "tables": Tables("*i64", "*i64", "*i32"),
        "count": "i32",
        "skip": "*i1",
        "scalars": Scalars(*["fp32"] * len(Scalars._fields)),
        "first": "i32",
        "second": "i32",
        "OPT": "constexpr",
    }
    source = ASTSource(fn=step, signature=signature, constexprs={(6,): chosen})
    registers = kernel.REGISTERS[storage.moments]
    return triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 1, "enable_fp_fusion": False, "maxnreg": registers},
    )


def instructions(ptx: str) -> Counter[str]:
    return Counter(re.findall(r"^\s+(?:@%p\d+ )?([a-z]+(?:\.[a-z0-9_]+)+)\s", ptx, re.M))


@pytest.mark.parametrize(("dtype", "storage"), KINDS, ids=str)
def test_every_operation_is_rounded_by_itself_to_nearest(dtype: str, storage: Storage) -> None:
    """No contraction, no approximate division or root, no flush of subnormals: `.rn` forbids the assembler to fuse."""
    found = instructions(compiled(dtype, storage).asm["ptx"])
    floats = {name for name in found if ".f32" in name and name.split(".")[0] in ("add", "sub", "mul", "div", "sqrt")}
    assert {"mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32", "sqrt.rn.f32"} <= floats
    assert all(".rn" in name for name in floats)
    assert not [name for name in found if name.startswith("fma") or ".ftz" in name or ".approx" in name]


@pytest.mark.parametrize(("dtype", "storage"), KINDS, ids=str)
def test_a_block_stays_in_registers_and_in_its_warp(dtype: str, storage: Storage) -> None:
    """Nothing is spilled to memory, and 16 bytes are loaded and stored at a time."""
    made = compiled(dtype, storage)
    ptx = made.asm["ptx"]
    assert "ld.local" not in ptx
    assert "ld.global.v4.b32" in ptx
    assert "st.global.v4.b32" in ptx
    assert stack_of(made.asm["cubin"]) == 0


def stack_of(cubin: bytes) -> int:
    """Bytes of a thread's stack that the assembler needed, which it does for spilled registers."""
    import subprocess
    import tempfile
    from pathlib import Path

    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not program.exists():
        pytest.skip("this Triton brings no cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(program), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", text)
    assert found
    return int(found[1])


def test_the_check_of_fusion_can_fail() -> None:
    """The same with contraction allowed has fused operations."""
    import triton
    from triton.backends.compiler import GPUTarget

    made = compiled("float32", PLAIN)
    fused = triton.compile(made.src, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    found = instructions(fused.asm["ptx"])
    assert [name for name in found if name.startswith("fma")] or "mul.f32" in found


@pytest.mark.parametrize("capability", [80, 100])
def test_older_and_newer_gpus_have_the_code_too(capability: int) -> None:
    found = instructions(compiled("bfloat16", MASTERS, capability).asm["ptx"])
    assert not [name for name in found if name.startswith("fma")]


def test_all_options_at_once_compile() -> None:
    options = dict.fromkeys(("amsgrad", "averages", "scaled", "l2", "zero_grad", "may_skip", "huge"), True)
    assert compiled("float32", Storage("bfloat16"), simple=False, **options).asm["cubin"]


class FakeDriver:
    """A GPU that is not there: kernels are specialised and compiled for it, and not launched."""

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hash of what each launch would have run."""
    from triton.runtime import driver

    found: list[str] = []
    monkeypatch.setattr(driver, "_active", FakeDriver())

    def compile_only(jitted: Any, programs: int, device: Any, arguments: Any, options: dict[str, int]) -> None:
        made = jitted.warmup(*arguments, grid=(programs,), enable_fp_fusion=False, **options)
        found.append(made.hash)

    monkeypatch.setattr(kernel, "_launch", compile_only)
    return found


def test_a_kernel_is_compiled_once_for_all_steps(compiled_kernels: list[str]) -> None:
    """Through the path that launches take: neither learning rates, steps, seeds nor numbers of tensors ask for more."""
    import torch

    from adamas.kernels.bucket import Bucket
    from adamas.state.conform import conform

    storage = Storage("packed16", 24, True)
    for count in (1, 16, 17):
        params = [torch.zeros(64, 64, dtype=torch.bfloat16) for _ in range(count)]
        states = [conform({}, param, storage, (), "a parameter") for param in params]
        prepared = kernel.prepare(Bucket(params, states, storage))
        for step, lr in ((1, 1e-3), (2, 1.0), (16, 0.5), (1000, 3e-4)):
            kernel.take(prepared, [torch.ones_like(param) for param in params])
            kernel.step(prepared, [StepScalars.of(Hyper(lr=lr), step, seed=step)])
    assert len(set(compiled_kernels)) == 1


def test_scalars_on_the_device_and_norms_compile(compiled_kernels: list[str]) -> None:
    import torch

    from adamas.kernels.bucket import Bucket

    params = [torch.zeros(300), torch.zeros(5)]
    states = [{name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq")} for param in params]
    prepared = kernel.prepare(Bucket(params, states))
    kernel.take(prepared, [torch.ones_like(param) for param in params])
    kernel.squares(prepared)
    steps = torch.tensor([1.0, 2.0], dtype=torch.float64)
    scalars = StepScalars.of(Hyper(lr=torch.tensor(0.1)), steps, grad_factor=torch.tensor(0.5))
    kernel.step(prepared, [scalars._replace(skip=torch.tensor(False))])
    assert len(compiled_kernels) == 2
