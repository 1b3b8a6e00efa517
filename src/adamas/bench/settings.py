"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from adamas.bench.measure import Effort
from adamas.bench.peers import PEERS, find, missing
from adamas.bench.scenario import SHAPES, Scenario, Work
from adamas.bench.shapes import model_shapes, parse_shapes

DEFAULT_SHAPES = ("48 tensors, 10 k", "144 tensors, 0.6 M", "144 tensors, 9.5 M")


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        scenarios: what is stepped.
        peers: names of the implementations beside ours.
        effort: how much is measured.
        out: file for the rows, written after each; None for none.
    """

    scenarios: list[Scenario]
    peers: list[str]
    effort: Effort
    out: Path | None = None


def choose_scenarios(model: str | None, shapes: str | None, dtype: str, work: Work) -> list[Scenario]:
    """Scenarios for the user's own model or shapes, or a small built-in set."""
    if model is not None and shapes is not None:
        raise ValueError(f"model={model!r} and shapes={shapes!r} are two answers to one question: give either")
    if model is not None:
        return [Scenario(model, model_shapes(model), dtype, work)]
    if shapes is not None:
        return [Scenario(shapes, parse_shapes(shapes), dtype, work)]
    return [Scenario(name, parse_shapes(SHAPES[name]), dtype, work) for name in DEFAULT_SHAPES]


def choose_peers(text: str) -> list[str]:
    """Names of peers: a list with commas, "installed" for those that can be imported, or "all"."""
    if text == "all":
        return list(PEERS)
    if text == "installed":
        return [name for name, peer in PEERS.items() if missing(peer) is None]
    return [find(name.strip()).name for name in text.split(",")]


def choose_threads(threads: int | None) -> int:
    """As given, or as many as torch takes by itself."""
    return torch.get_num_threads() if threads is None else threads
