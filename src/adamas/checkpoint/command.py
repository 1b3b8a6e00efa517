"""Run `adamas convert`, and print what becomes of each parameter."""

from __future__ import annotations

import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adamas.checkpoint.api import convert
from adamas.checkpoint.conversion import Report
from adamas.checkpoint.rules import Rules


def run_command(source: Path, path: Path | None, to: str, rules: Rules, strict: bool, console: Console) -> bool:
    """Convert a checkpoint and print the report, and return whether all parameters can be converted.

    Args:
        source: the file to convert.
        path: the new file, or None to print the report only.
        to: the framework to convert to.
        rules: new names and transforms.
        strict: whether to refuse different steps where the framework counts once for all.
        console: where to print.
    """
    with warnings.catch_warnings(action="ignore"):  # the notes of the report say the same
        report = convert(source, path, to=to, rules=rules, strict=strict)
    _print(report, console)
    if path is not None:
        console.print(f"written to {path}", soft_wrap=True, markup=False)
    return not report.all_refusals()


def _print(report: Report, console: Console) -> None:
    """Print one line for each parameter, then what is refused, then the notes."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for title in ("parameter", "shape", "becomes", "shape", "transform"):
        table.add_column(title, overflow="fold")
    for row in report.rows:
        target = "refused" if row.refusal else row.target or "left out"
        style = "red" if row.refusal else "" if row.target else "dim"
        new = "" if row.refusal or not row.target else _shown(row.new_shape)
        # Text, not strings: brackets in a name are no markup.
        table.add_row(*(Text(cell, style) for cell in (row.name, _shown(row.shape), target, new, row.transform)))
    console.print(table)
    for style, lines in (("red", report.all_refusals()), ("", [f"note: {note}" for note in report.notes])):
        for line in lines:
            console.print(Text(line, style=style), soft_wrap=True)


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
