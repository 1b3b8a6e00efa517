"""Write the report of one or several studies: one HTML page that works without a network."""

from __future__ import annotations

from pathlib import Path

from adamas.compare.report.section import section
from adamas.compare.verdict.result import Summary
from adamas.page.render import plotly_script, template, write_html
from adamas.page.text import anchors

TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: list[Summary], path: Path | None = None) -> Path:
    """Write the report of one or several studies, and return its path; a reader never sees half a page.

    Args:
        results: The studies, all in one language, in the order of the page.
        path: A folder, which gets an index.html, or an .html file; None takes the folder of the studies.
    """
    return write_html(render(results), path or results[0].record.settings.out)


def render(results: list[Summary]) -> str:
    """Return the page of one or several studies as HTML."""
    names = [result.record.settings.workload.name for result in results]
    ids = anchors(names, "study")
    studies = [section(result, ids[name]) for name, result in zip(names, results, strict=True)]
    drawn = {f"{study['id']}-{name}": each.plot for study in studies for name, each in study["figures"].items()}
    page = template("compare.html", results[0].say, TEMPLATES)
    return page.render(plotly=plotly_script(drawn), studies=studies, figures=drawn)
