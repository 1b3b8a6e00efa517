"""Name the extra of Adamas to install where a framework is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def needs(*packages: str, extra: str) -> Generator[None]:
    """Import packages in a block; a missing one gives an error that says what to install.

    Example:
        >>> with needs("no_such_package", extra="jax"):
        ...     import no_such_package
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: no_such_package is not installed: pip install 'adamas[jax]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise ModuleNotFoundError(f"{missing} is not installed: pip install 'adamas[{extra}]'", name=missing) from error
