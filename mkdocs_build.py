"""What the build of the site adds to mkdocs: MathML, the language of Chinese pages, examples as code, the playground.

A browser shows MathML without a script and without a network.
"""

import re
from html import unescape
from typing import Any

import griffe
from math_core import LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from adamas.understand.playground.build import build_page

# `pymdownx.arithmatex` marks $...$ as <span class="arithmatex">\(...\)</span>, and $$...$$ as a div with \[...\].
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_CONVERTER = LatexToMathML()


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add the playground, as `adamas play` writes it, to the site; mkdocs calls this once for all files."""
    files.append(File.generated(config, "play.html", content=build_page()))


def on_page_content(html: str, **_: Any) -> str:
    """Return the HTML of a page with its formulas as MathML; mkdocs calls this once for each page."""
    return _FORMULA.sub(_to_mathml, html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return a page of docs/zh/ marked as Chinese, for fonts, hyphenation and screen readers."""
    return output.replace('<html lang="en"', '<html lang="zh-CN"', 1) if page.file.src_uri.startswith("zh/") else output


def _to_mathml(formula: re.Match[str]) -> str:
    """Return one formula as MathML; $$...$$ stands on a line of its own."""
    return _CONVERTER.convert_with_local_state(unescape(formula[3]).strip(), displaystyle=formula[2] == "[")


class Examples(griffe.Extension):
    """Read a docstring's section "Example:" as "Examples:", the only name for which griffe shows code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section; griffe calls this for each object that it has loaded."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
