"""Tables in Markdown pages, for everything that is rendered from results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def line(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a row of headings."""
    return "\n".join([line(*headings), f"|{'---|' * len(headings)}", *(line(*row) for row in rows)])


def filled(page: str, mark: str, content: str) -> str:
    """Return the page with `content` between its `<!-- mark -->` and `<!-- /mark -->`."""
    made = f"<!-- {mark} -->\n{content}\n<!-- /{mark} -->"
    return re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: made, page, flags=re.DOTALL)
