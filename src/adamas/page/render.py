"""Render a page as one HTML file that works without a network, and write it whole or not at all."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamas.language import Texts, chosen
from adamas.page.content import Figure, Page, Table
from adamas.page.text import anchors
from adamas.whole_file import write_whole

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent
TEXTS = _HERE / "texts"  # the catalogue of the words that every page has


def write_page(page: Page, path: Path) -> Path:
    """Write a page and return its path; a reader never sees half a page.

    Args:
        page: The page.
        path: A folder, which gets an index.html, or an .html file.
    """
    return write_html(render(page), path)


def write_html(text: str, path: Path) -> Path:
    """Write HTML into a folder, as index.html, or into an .html file, and return the path of the file."""
    page = path if path.suffix == ".html" else path / "index.html"
    write_whole(page, text)
    return page


def template(name: str, say: Texts, *folders: Path) -> jinja2.Template:
    """Return a template of this package, or of the folders.

    Args:
        name: The file of the template.
        say: The texts, which templates call as `say(key)`, where a text is HTML, and its arguments are escaped.
        folders: Folders of templates, which are found before those of this package.
    """
    import jinja2

    known = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _HERE / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known.filters["csv_link"] = csv_link
    return known.get_template(name, globals={"say": say.html})


def plotly_script(figures: dict[str, Any]) -> str:
    """Return Plotly's script, or nothing for a page without figures."""
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def render(page: Page) -> str:
    """Return a page as HTML."""
    say = Texts(chosen(page.lang), TEXTS)
    ids = distinct((section.anchor or section.title for section in page.sections), "sections of the page")
    sections = list(zip(ids, page.sections, strict=True))
    figures = {f"{anchor}-{name}": figure for anchor, section in sections for name, figure in named(section.figures)}
    return template("page.html", say).render(
        page=page,
        sections=[
            {"id": id_, "part": part, "figures": named(part.figures), "tables": list(map(cells, part.tables))}
            for id_, part in sections
        ],
        figures={name: figure.plot for name, figure in figures.items()},
        plotly=plotly_script(figures),
    )  # fmt: skip


def named(figures: Iterable[Figure]) -> list[tuple[str, Figure]]:
    """Return the figures, each with a name that may be part of an HTML id."""
    figures = list(figures)
    return list(zip(distinct((figure.name for figure in figures), "figures of a section"), figures, strict=True))


def distinct(names: Iterable[str], what: str) -> list[str]:
    """Return an HTML id for each name, and refuse two equal names.

    Args:
        names: The names.
        what: The things that have the names, for the message.
    """
    names = list(names)
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} must differ in their names, and {doubles[0]!r} occurs twice; rename one of them")
    ids = anchors(names)
    return [ids[name] for name in names]


def cells(table: Table) -> dict[str, Any]:
    """Return a table for the template: each cell as it is shown, and as it is sorted."""
    return {
        "name": distinct([table.name], "tables")[0],
        "caption": table.caption,
        "columns": table.columns,
        "rows": [[_shown(cell) for cell in row] for row in table.rows],
        "csv": as_csv(table),
    }  # fmt: skip


def _shown(cell: str | float | None) -> tuple[str, str]:
    """Return a cell as text, a number with four digits, and the number that it is sorted by."""
    if cell is None:
        return "\N{EN DASH}", ""
    if isinstance(cell, str):
        return cell, ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell), repr(cell)


def as_csv(table: Table) -> str:
    """Return a table as CSV; an empty cell is empty, and numbers have all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *table.rows])
    return text.getvalue()


def csv_link(text: str) -> str:
    """Return CSV as a link that holds the file itself."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
