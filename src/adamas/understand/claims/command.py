"""Run `adamas claims`: measure claims, show the table or the JSON, and write the page."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from adamas.language import Language
from adamas.page import write_page
from adamas.understand.claims.claim import Claim, say_in
from adamas.understand.claims.page import PLAYGROUND, make_page
from adamas.understand.claims.run import Failure, Measured, measure, to_json
from adamas.understand.claims.terminal import failure_line, print_table, progress
from adamas.understand.playground.build import write_page as write_playground


@dataclass(frozen=True)
class Output:
    """Where the results go, and in which language.

    Attributes:
        out: The console of the results.
        err: The console of the progress.
        lang: The language.
        as_json: Whether to print JSON in place of the table.
        folder: The folder or file of the page; None writes none.
    """

    out: Console
    err: Console
    lang: Language
    as_json: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a command ended: whether Ctrl-C stopped it, and the claims that could not be measured."""

    measured: int
    failures: tuple[Failure, ...]
    interrupted: bool


def run_command(claims: Sequence[Claim], output: Output) -> Outcome:
    """Measure the claims and show what was found; after Ctrl-C, what was found so far.

    Args:
        claims: The claims, in order.
        output: Where the results go.

    Raises:
        OSError: the page cannot be written; the results are shown before.
    """
    if output.folder is not None:
        _check_writable(output.folder)
    say = say_in(output.lang)
    found: list[Measured] = []
    failures: list[Failure] = []
    interrupted = False
    try:
        for claim in progress(claims, output.err, say):
            result = measure(claim, output.lang)
            if isinstance(result, Measured):
                found.append(result)
            else:
                failures.append(result)
                output.err.print(failure_line(result, say), soft_wrap=True, markup=False)
    except KeyboardInterrupt:
        interrupted = True
    if output.as_json:
        lossless = output.out.encoding.startswith("utf")
        text = json.dumps(to_json(found), allow_nan=False, ensure_ascii=not lossless, indent=2)
        output.out.file.write(text + "\n")
        output.out.file.flush()
    elif found:
        print_table(output.out, found, say)
    if output.folder is not None and found:
        path = write_page(make_page(found, failures, output.lang), output.folder)
        write_playground(path.with_name(PLAYGROUND), output.lang)
        output.err.print(say(f"page: {path}", f"页面：{path}"), soft_wrap=True, markup=False)
    return Outcome(len(found), tuple(failures), interrupted)


def _check_writable(folder: Path) -> None:
    """Refuse a place that the page cannot go to, before the claims take their minutes."""
    place = folder.parent if folder.suffix == ".html" else folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"out={folder} cannot be written: {place} must be a folder that you may write to")
