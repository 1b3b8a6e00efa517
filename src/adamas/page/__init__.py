"""How does a page of results look? One template and one design for every HTML page of the package.

Start with `content` (what a page holds), then `render` (how it becomes one file that works without a network). `lines`
makes line charts, `text` has what names need in ids, file names and figures. Style and script are in `templates`, the
page's own words in `texts`.
"""

from adamas.page.content import Figure, Page, Section, Table
from adamas.page.render import TEXTS, write_page

__all__ = ["TEXTS", "Figure", "Page", "Section", "Table", "write_page"]
