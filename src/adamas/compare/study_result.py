"""The result of a study, as a library call returns it and a notebook shows it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from adamas.compare.report import write_report
from adamas.compare.report.notebook import notebook_html
from adamas.compare.report.terminal import print_verdict
from adamas.compare.verdict.contract import rows_of, study
from adamas.compare.verdict.decision import Verdict
from adamas.compare.verdict.result import ArmResult, Summary
from adamas.compare.verdict.statistics import Difference
from adamas.language import chosen

_WIDTH = 100  # characters of a line of `repr`


class StudyResult:
    """The verdict of a finished study, and the evidence for it.

    Attributes:
        summary: Everything that the report shows; the properties below are the interface.
    """

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    @property
    def verdict(self) -> Verdict:
        """The verdict: `kind` is "switch", "keep", "no_difference", "undecided" or "no_decay", `text` says it in words.

        `more_seeds` is the number of further seeds that would decide an undecided study at the observed spread.
        """
        return self.summary.verdict

    @property
    def difference(self) -> Difference | None:
        """AdamW minus Adam with L2 on the test split, with its interval; None where a finalist diverged."""
        return self.summary.difference

    @property
    def arms(self) -> dict[str, ArmResult]:
        """The result of each arm by name: `lr`, `weight_decay`, and `validation` and `test` figures by seed."""
        return self.summary.arms

    @property
    def warnings(self) -> list[str]:
        """Sentences that a reader must know about the verdict."""
        return self.summary.warnings

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run as a plain dictionary; `pandas.DataFrame(result.runs)` makes a table of them."""
        return rows_of(self.summary.record)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict and the figures of the arms as plain data: one of the "studies" that `--json` prints."""
        return study(self.summary)

    def report(self, path: str | os.PathLike[str] = "report", lang: str | None = None) -> Path:
        """Write the report, one page that needs no network, and return its path.

        Args:
            path: A folder, which gets an index.html, or an .html file.
            lang: "en" or "zh"; None takes the language of the locale.
        """
        return write_report([self.summary.in_language(chosen(lang))], Path(path))

    def __repr__(self) -> str:
        """Return the verdict and the table of the arms, as the command line prints them."""
        text = io.StringIO()
        console = Console(file=text, width=_WIDTH, color_system=None, highlight=False, emoji=False, force_jupyter=False)
        print_verdict(console, self.summary)
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        """Return the verdict, the table of the arms and the figure of the differences, for a notebook."""
        return notebook_html(self.summary)
