"""Every run of a study as CSV."""

from __future__ import annotations

import csv
import io

from adamas.compare.verdict.contract import rows_of
from adamas.compare.verdict.result import Summary


def trials_csv(result: Summary) -> str:
    """Return one line for each run, pilot and finals included; a figure that was not measured is empty."""
    rows = rows_of(result.record)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
