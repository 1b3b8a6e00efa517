"""Which implementations are ours compared with? Start reading in `contract.py`; a new one is a class and a line."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

from adamas.bench.peers import torch_peers
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.fronts import JaxAdamW, JaxFused, KerasFit, KerasXla
from adamas.bench.peers.keras_tensorflow import Keras
from adamas.bench.peers.numpy_arrays import PlainNumPy
from adamas.bench.peers.optax_jit import Optax

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        *(torch_peers.TorchFused, torch_peers.TorchForeach, torch_peers.Torch),
        *(Optax, Keras),
        *(torch_peers.Optimi, torch_peers.BitsAndBytes, torch_peers.BitsAndBytes8),
        *(torch_peers.TorchAO8, torch_peers.TorchAO4, torch_peers.FlashOptim, torch_peers.ApexFused),
        *(PlainNumPy, JaxFused, JaxAdamW, KerasFit, KerasXla),  # beside our fronts of NumPy, JAX and Keras
    )
}

distributions = cache(packages_distributions)  # takes a while: it reads the metadata of every package


def find(name: str) -> type[Peer]:
    """Return the peer called `name`; the error lists the known ones."""
    if name not in PEERS:
        raise ValueError(f"unknown peer {name!r}; the known ones are: {', '.join(PEERS)}")
    return PEERS[name]


def implementation(name: str) -> type[Peer]:
    """Return the peer called `name`, or our own implementation."""
    return torch_peers.Ours if name == torch_peers.Ours.name else find(name)


def missing(peer: type[Peer]) -> str | None:
    """Return which modules of a peer are not installed and how to get them; None if they are there."""
    absent = [module for module in peer.modules if find_spec(module) is None]
    return f"not installed ({', '.join(absent)}): pip install {peer.install}" if absent else None


def versions(peer: type[Peer]) -> dict[str, str]:
    """Return the version of each module of a peer that is installed."""
    found: dict[str, str] = {}
    for module in peer.modules:
        try:
            found[module] = version(distributions().get(module, [module])[0])
        except PackageNotFoundError:
            continue
    return found
