"""The rows of `adamas doctor` about torch: its version, and the kernel for each dtype."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from adamas.kernels import native, triton
from adamas.kernels.bucket import Traits
from adamas.torch.dispatch import Request, choose


def report() -> list[tuple[str, str, str]]:
    """Rows `(what, status, detail)`, with the status "ok", "slow" or "off"."""
    exchange = "fast" if hasattr(torch.Tensor, "__dlpack_c_exchange_api__") else "slow (torch before 2.10)"
    rows = [("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads, tensor access {exchange}")]
    rows += _dtypes("cpu", native.NAME, native.DTYPES)
    if not torch.cuda.is_available():
        return [*rows, ("cuda", "off", "none found")]
    return [*rows, ("cuda", "ok", torch.cuda.get_device_name()), *_dtypes("cuda", triton.NAME, triton.DTYPES)]


def _dtypes(device: str, fast: str, dtypes: Iterable[torch.dtype]) -> list[tuple[str, str, str]]:
    """A row for each dtype: "ok" where its parameters get the fast kernel of the device."""
    rows: list[tuple[str, str, str]] = []
    for dtype in dtypes:
        choice = choose(Traits(device, dtype, dtype, plain=True, dense=True, host_scalars=True), Request())
        status = "ok" if choice.kernel == fast else "slow"
        rows.append((f"{dtype} on {device}", status, f"{choice.kernel}: {choice.reason}"))
    return rows
