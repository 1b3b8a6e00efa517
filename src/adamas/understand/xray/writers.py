"""Write the figures of an X-ray to the terminal, to CSV files and to TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from adamas.language import Texts
from adamas.understand.xray.columns import COLUMNS, Column, cell, shown
from adamas.whole_file import write_whole


class ScalarWriter(Protocol):
    """What `torch.utils.tensorboard.SummaryWriter` and its relatives offer."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: Any = None) -> Any:
        """Record one number under a name at a step."""
        ...


_FIRST = ("layer", "rate_p50", "equivalent", "correlation", "rms", "rms_equilibrium")  # columns of a narrow terminal


def table(rows: Sequence[dict[str, Any]], say: Texts, width: int | None = None) -> Table:
    """Return the figures of one step as a table for the terminal, one line a layer.

    Args:
        rows: The figures of all layers together, and of each layer.
        say: The texts of the table's language.
        width: The columns of the terminal: figures that do not fit are left out, which the title says. None shows all.
    """
    columns, title = shown(list(rows), brief=True), say("terminal.step", step=rows[0]["step"])
    if width is not None:
        wanted, whole = sorted(columns, key=lambda column: column.key not in _FIRST), len(columns)
        while len(wanted) > 1 and sum(_width(column, rows, say) for column in wanted) > width:
            wanted.pop()
        columns = [column for column in columns if column in wanted]
        if len(columns) < whole:
            title += say("terminal.narrow", count=whole - len(columns))
    found = Table(title=title, box=None, padding=(0, 1), header_style="bold", title_justify="left")
    for column in columns:
        found.add_column(column.title(say), overflow="fold", justify="left" if column.form == "text" else "right")
    for row in rows:
        # Text, not strings: brackets in a name are no markup.
        found.add_row(*(Text(cell(column, row[column.key])) for column in columns))
    return found


def _width(column: Column, rows: Sequence[dict[str, Any]], say: Texts) -> int:
    """Return how wide a column is, with a space on both sides."""
    return 2 + max(cell_len(text) for text in (column.title(say), *(cell(column, row[column.key]) for row in rows)))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the figures of all steps to a CSV file, which appears whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *(column.key for column in COLUMNS)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def write_scalars(writer: ScalarWriter, rows: Sequence[dict[str, Any]]) -> None:
    """Record every number of every row under "xray/<layer>/<figure>"."""
    for row in rows:
        for column in COLUMNS:
            value = row[column.key]
            if column.form != "text" and value is not None:
                writer.add_scalar(f"xray/{row['layer']}/{column.key}", value, row["step"])
