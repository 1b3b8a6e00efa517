"""The report of `adamas doctor`: for each framework its version, what steps its arrays, and why nothing faster does."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy

import adamas
from adamas.kernels.extension import missing, native

Row = tuple[str, str, str]


def report() -> list[Row]:
    """Rows `(what, status, detail)`, with the status "ok", "slow" or "off"."""
    rows: list[Row] = [
        ("adamas", "ok", adamas.__version__),
        ("python", "ok", f"{platform.python_version()} on {platform.machine()} {platform.system()}"),
    ]
    if missing is None:
        rows.append(("native kernel", "ok", f"instruction sets {', '.join(native.isas())}"))
    else:
        fix = "install a C++20 compiler with OpenMP, then pip install --force-reinstall --no-deps adamas"
        rows.append(("native kernel", "slow", f"{missing}: {fix}"))
    for name, rows_of in (("numpy", _numpy), ("torch", _torch), ("jax", _jax), ("keras", _keras)):
        rows += _installed(name, rows_of)
    return rows


def _installed(name: str, rows_of: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a framework, or one that says what to install or what failed."""
    if not _is_installed(name):
        return [(name, "off", f"not installed: pip install 'adamas[{name}]'")]
    try:
        return rows_of()
    except Exception as error:  # a broken installation of a framework must not hide the other rows
        return [(name, "off", f"cannot be used: {type(error).__name__}: {error}")]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a specification: somebody hides it
        return False


def _numpy() -> list[Row]:
    from adamas.kernels.arrays import mechanism

    return [_front("numpy", numpy.__version__, *mechanism())]


def _torch() -> list[Row]:
    from adamas.torch.doctor import report as of_torch

    return of_torch()


def _jax() -> list[Row]:
    from adamas.jax import mechanism

    return [_front("jax", f"{version('jax')}, optax {version('optax')}", *mechanism())]


def _keras() -> list[Row]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on standard error
    import keras

    from adamas.keras import mechanism

    name = keras.backend.backend()
    try:
        backend = f"{name} {version(name)}"
    except PackageNotFoundError:  # tensorflow is also installed as tensorflow-cpu
        backend = name
    return [_front("keras", f"{version('keras')} on {backend}", *mechanism())]


def _front(name: str, versions: str, mechanism: str, reason: str) -> Row:
    """A row: "ok" where compiled code steps all arrays in one call, "slow" where single operations do."""
    status = "slow" if mechanism in ("numpy", "eager") else "ok"
    return name, status, f"{versions}; steps by {mechanism}: {reason}"
