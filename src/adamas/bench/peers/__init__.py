"""The implementations that ours is measured beside. A new one is a file and its line here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

from adamas.bench.peers.apex import ApexFused
from adamas.bench.peers.bitsandbytes import BitsAndBytes, BitsAndBytes8
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.flashoptim import FlashOptim
from adamas.bench.peers.keras_tensorflow import Keras
from adamas.bench.peers.optax_jit import Optax
from adamas.bench.peers.optimi import Optimi
from adamas.bench.peers.torch_optim import Torch, TorchForeach, TorchFused
from adamas.bench.peers.torchao import TorchAO4, TorchAO8

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        TorchFused,
        TorchForeach,
        Torch,
        Optax,
        Keras,
        Optimi,
        BitsAndBytes,
        BitsAndBytes8,
        TorchAO8,
        TorchAO4,
        FlashOptim,
        ApexFused,
    )
}


def find(name: str) -> type[Peer]:
    """Return the peer called `name`; the error lists the known ones."""
    if name not in PEERS:
        raise ValueError(f"unknown peer {name!r}; the known ones are: {', '.join(PEERS)}")
    return PEERS[name]


def missing(peer: type[Peer]) -> str | None:
    """Which modules a peer needs and how to get them; None if they are there."""
    absent = [module for module in peer.modules if find_spec(module) is None]
    return f"not installed ({', '.join(absent)}): pip install {peer.install}" if absent else None


def versions(peer: type[Peer]) -> dict[str, str]:
    """Version of each module of a peer that is installed."""
    distributions = packages_distributions()
    found: dict[str, str] = {}
    for module in peer.modules:
        try:
            found[module] = version(distributions.get(module, [module])[0])
        except PackageNotFoundError:
            continue
    return found
