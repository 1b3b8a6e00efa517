"""Build the playground: one HTML file without any request, joined from a template, a style, scripts, texts and maps."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from adamas.language import LANGUAGES, Language
from adamas.whole_file import write_whole

SCRIPTS = ("rule.js", "toy.js", "plot.js", "figures.js", "controls.js", "studies.js", "page.js")
_HERE = Path(__file__).parent


def build_page(lang: Language = "en") -> str:
    """Return the HTML of the playground, which opens in this language and can be switched to the other.

    Example:
        >>> page = build_page("zh")
        >>> page.startswith("<!doctype html>"), "<title>" in page, "http" in page.replace("http-equiv", "")
        (True, True, False)
    """
    texts = {language: _json(f"texts/{language}.json") for language in LANGUAGES}
    parts = {
        "lang": {"en": "en", "zh": "zh-CN"}[lang],
        "title": escape(texts[lang]["title"]),
        "style": _text("style.css"),
        "texts": _in_script(texts),
        "maps": _in_script(_json("maps.json")),
        "script": "\n".join(map(_text, SCRIPTS)),
    }
    page = _text("template.html")
    for name, part in parts.items():
        page = page.replace(f"@{name}@", part, 1)
    return page


def write_page(path: Path, lang: Language = "en") -> Path:
    """Write the playground to a file, which an interrupted call leaves as it was, and return the path."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out={path} must end in .html, as in --out {path.with_suffix('.html')}")
    page = build_page(lang)
    write_whole(path, page)
    return path


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _json(name: str) -> dict[str, Any]:
    return json.loads(_text(name))


def _in_script(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
