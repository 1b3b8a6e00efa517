"""The published figures: all twenty claims, as the experiments name them, and the page that is made of them."""

from __future__ import annotations

import pytest

from adamas.language import Language
from adamas.understand.claims.registry import CLAIMS
from benchmarks import claims


def test_every_claim_is_published_as_the_code_names_it() -> None:
    found = claims.published("en")
    assert [each["number"] for each in found] == list(CLAIMS)
    for each in found:
        claim = CLAIMS[each["number"]]  # type: ignore[index]
        assert (each["source"], each["article_zh"], each["article_en"]) == (
            claim.source, claim.article_zh, claim.article_en,
        )  # fmt: skip


@pytest.mark.parametrize("lang", list(claims.WORDS))
def test_the_page_is_made_of_the_figures(lang: Language) -> None:
    text = claims.WORDS[lang].page.read_text(encoding="utf-8")
    assert claims.page(text, claims.published(lang), lang) == text
    assert all(f"`adamas claims --only {number}`" in text for number in CLAIMS)


def test_the_article_and_all_twenty_keep_their_time() -> None:
    """On one processor: the article's thirteen in 5 minutes, all in 60."""
    seconds = [float(each["seconds"]) for each in claims.published("en")]  # type: ignore[arg-type]
    assert sum(seconds[:13]) < 300
    assert sum(seconds) < 3600
