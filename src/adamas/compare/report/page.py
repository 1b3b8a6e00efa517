"""Write the report of one or several studies: one HTML page that works without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adamas.compare.report.section import section
from adamas.compare.verdict.result import Summary
from adamas.language import Texts
from adamas.page import TEXTS
from adamas.page.render import plotly_script, template, write_html
from adamas.page.text import anchors

TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: list[Summary], path: Path | None = None) -> Path:
    """Write the report of one or several studies, and return its path; a reader never sees half a page.

    Args:
        results: The studies, in the order of the page.
        path: A folder, which gets an index.html, or an .html file; None takes the folder of the studies.
    """
    return write_html(render(results), path or results[0].record.settings.out)


def render(results: list[Summary]) -> str:
    """Return the page of one or several studies as HTML."""
    names = [result.record.settings.workload.name for result in results]
    ids = anchors(names, "study")
    studies = [section(result, ids[name]) for name, result in zip(names, results, strict=True)]
    figures: dict[str, Any] = {}
    for study in studies:
        figures |= study.pop("figures")
    page = template("compare.html", Texts("en", TEXTS), TEMPLATES)
    return page.render(plotly=plotly_script(figures), studies=studies, figures=figures)
