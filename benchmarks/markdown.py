"""Tables in pages: what all that is rendered from results shares."""

from __future__ import annotations

import re


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def filled(page: str, mark: str, content: str) -> str:
    """The page with `content` between its `<!-- mark -->` and `<!-- /mark -->`."""
    made = f"<!-- {mark} -->\n{content}\n<!-- /{mark} -->"
    return re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: made, page, flags=re.DOTALL)
