"""Write a file so that a reader finds the old one or the whole new one, whenever the writer is stopped."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """Give a path beside `path` to write to; the file takes the place of `path` when the block ends without an error.

    The file has the permissions that the umask allows, whatever the block does to them.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        unfinished.touch(exist_ok=False)
        mode = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
