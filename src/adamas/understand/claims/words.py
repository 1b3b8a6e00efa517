"""The words that the terminal and the page share, in both languages."""

from __future__ import annotations

from adamas.understand.claims.claim import Say, Verdict


def verdict(kind: Verdict, say: Say) -> str:
    """Return a verdict in words."""
    return {
        "holds": say("holds", "成立"),
        "conditional": say("holds under a condition", "有条件成立"),
        "does_not_hold": say("does not hold", "不成立"),
    }[kind]
