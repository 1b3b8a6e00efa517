"""The language of pages and verdicts: which one a user wants, and the texts of each in a catalogue."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from markupsafe import Markup

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
_LOCALES = ("LC_ALL", "LC_MESSAGES", "LANG")  # in the order in which POSIX reads them


def chosen(lang: str | None = None) -> Language:
    """Return the language that was asked for, or else that of the user's locale.

    Args:
        lang: "en" or "zh", as typed. None takes the first of LC_ALL, LC_MESSAGES and LANG that is set; every locale
            but the Chinese ones stands for English.

    Raises:
        ValueError: the language is not one of these two.

    Example:
        >>> chosen("zh")
        'zh'
        >>> chosen("fr")
        Traceback (most recent call last):
        ...
        ValueError: lang='fr' must be en or zh; without it, the language of the locale is taken
    """
    for language in LANGUAGES:
        if lang == language:
            return language
    if lang is not None:
        raise ValueError(
            f"lang={lang!r} must be {' or '.join(LANGUAGES)}; without it, the language of the locale is taken"
        )
    locale = next((os.environ[name] for name in _LOCALES if os.environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


class Texts:
    """The texts of one language, from catalogues in TOML.

    A catalogue is a folder with a file for each language. All of its files have the same keys, and in a text the same
    names in braces, which are filled in when the text is used.

    Args:
        lang: The language.
        folders: The catalogues, whose keys differ.

    Attributes:
        lang: The language.

    Example:
        >>> from adamas.page import TEXTS
        >>> say = Texts("en", TEXTS)
        >>> say("page.copied"), say("page.save", name="loss")
        ('Copied', 'Save “loss” as PNG')
    """

    def __init__(self, lang: Language, *folders: Path) -> None:
        self.lang = lang
        self._texts: dict[str, str] = {}
        for folder in folders:
            sections = tomllib.loads((folder / f"{lang}.toml").read_text(encoding="utf-8"))
            self._texts |= {f"{name}.{key}": text for name, texts in sections.items() for key, text in texts.items()}

    def __call__(self, key: str, **arguments: Any) -> str:
        """Return a text with its arguments filled in."""
        return self._texts[key].format_map(arguments)

    def html(self, key: str, **arguments: Any) -> Markup:
        """Return a text that is HTML; the arguments are escaped, and the text itself is not."""
        from markupsafe import Markup

        return Markup(self._texts[key]).format(**arguments)

    def __contains__(self, key: str) -> bool:
        """Return whether the catalogues have a text for the key."""
        return key in self._texts
