"""How is a finished or running study shown? As an HTML page, in a notebook, or on the terminal.

Start with `page` (writes the page), then `section` (the contents of one study), then `tables`, `curves`, `pairs` and
`heatmaps` (its tables and figures). `text` has their common parts. `terminal`, `live` and `notebook` are other views.
The page stands on `adamas.page`; its structure is in `templates`, and its sentences are in `compare/texts`.
"""

from adamas.compare.report.page import write_report

__all__ = ["write_report"]
