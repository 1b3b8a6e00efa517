"""What `adamas doctor` says of this machine: versions, and which kernel steps what."""

from __future__ import annotations

import platform

import numpy
import torch

import adamas
from adamas.kernels import native, triton
from adamas.kernels.bucket import Traits
from adamas.torch.dispatch import Request, choose


def report() -> list[tuple[str, str, str]]:
    """Rows `(what, status, detail)`; status is "ok", "slow" or "off"."""
    rows = [
        ("adamas", "ok", adamas.__version__),
        ("python", "ok", f"{platform.python_version()} on {platform.machine()} {platform.system()}"),
        ("numpy", "ok", numpy.__version__),
        ("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads"),
    ]
    if native.missing is None:
        exchange = "fast" if hasattr(torch.Tensor, "__dlpack_c_exchange_api__") else "slow (torch before 2.10)"
        rows.append(("native kernel", "ok", f"instruction sets {', '.join(native.isas())}; tensor access {exchange}"))
    else:
        fix = "install a C++20 compiler with OpenMP, then pip install --force-reinstall --no-deps adamas"
        rows.append(("native kernel", "slow", f"{native.missing}: {fix}"))
    for dtype in native.DTYPES:
        choice = choose(Traits("cpu", dtype, dtype, plain=True, dense=True, host_scalars=True), Request())
        rows.append(
            (f"{dtype} on cpu", "ok" if choice.kernel == "native" else "slow", f"{choice.kernel}: {choice.reason}")
        )
    return [*rows, *_on_gpus()]


def _on_gpus() -> list[tuple[str, str, str]]:
    """What steps parameters on a GPU."""
    if not torch.cuda.is_available():
        return [("cuda", "off", "none found")]
    rows = [("cuda", "ok", torch.cuda.get_device_name())]
    for dtype in triton.DTYPES:
        choice = choose(Traits("cuda", dtype, dtype, plain=True, dense=True, host_scalars=True), Request())
        fast = choice.kernel == "triton"
        rows.append((f"{dtype} on cuda", "ok" if fast else "slow", f"{choice.kernel}: {choice.reason}"))
    return rows
