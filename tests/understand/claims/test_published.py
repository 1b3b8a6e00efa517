"""The published figures: all twenty claims, as the experiments name them, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path

from adamas.understand.claims.registry import CLAIMS
from benchmarks import claims

ROOT = Path(__file__).parents[3]


def published() -> list[dict[str, object]]:
    return json.loads(claims.FOUND.read_text())["claims"]


def test_every_claim_is_published_as_the_code_names_it() -> None:
    found = published()
    assert [each["number"] for each in found] == list(CLAIMS)
    for each in found:
        claim = CLAIMS[each["number"]]  # type: ignore[index]
        assert (each["source"], each["article_zh"], each["article_en"]) == (
            claim.source, claim.article_zh, claim.article_en,
        )  # fmt: skip


def test_the_page_is_made_of_the_figures() -> None:
    text = claims.PAGE.read_text(encoding="utf-8")
    assert claims.page(text, published()) == text
    assert all(f"`adamas claims --only {number}`" in text for number in CLAIMS)


def test_the_article_and_all_twenty_keep_their_time() -> None:
    """On one processor: the article's thirteen in 5 minutes, all in 60."""
    seconds = [float(each["seconds"]) for each in published()]  # type: ignore[arg-type]
    assert sum(seconds[:13]) < 300
    assert sum(seconds) < 3600
