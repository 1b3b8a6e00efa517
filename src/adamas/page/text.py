"""What names need in HTML ids, in names of files and in the texts of figures."""

from __future__ import annotations

import re
from collections.abc import Iterable


def plain(text: str) -> str:
    """Return a text that Plotly shows as it is.

    In titles, names, ticks and hover texts Plotly interprets some tags, entities, and %{...}.

    Example:
        >>> plain("<b>50 %{x} & more")
        '&lt;b&gt;50 %&#123;x} &amp; more'
    """
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("%{", "%&#123;")


def anchors(names: Iterable[str], default: str = "part") -> dict[str, str]:
    """Return a unique HTML id for each name; equal ids get a number.

    Letters of every script stay, so an id is also a good name for a file.

    Args:
        names: The names.
        default: The id of a name without a letter or a digit.

    Example:
        >>> anchors(["digits", "my job.py:job", "my-job.py:job"])
        {'digits': 'digits', 'my job.py:job': 'my-job-py-job', 'my-job.py:job': 'my-job-py-job-2'}
    """
    found: dict[str, str] = {}
    for name in names:
        slug = "-".join(re.findall(r"\w+", name)) or default
        number, anchor = 1, slug
        while anchor in found.values():
            number += 1
            anchor = f"{slug}-{number}"
        found[name] = anchor
    return found
