"""The rows that the project measures on a CPU, with the limits that a change must keep to."""

from __future__ import annotations

from typing import Any

from adamas.bench.peers import PEERS
from adamas.bench.scenario import FIRST, MEMORY, SHAPES, Scenario, Work, parse_shapes

BEST_TORCH = "torch-fused"
LEAN_PEERS = (BEST_TORCH, "bitsandbytes-8bit", "torchao-8bit")
BESIDE_TORCH = tuple(name for name, peer in PEERS.items() if peer.ours is None)  # beside `adamas.torch.AdamW`
LIMITED = "Intel(R) Xeon(R) Processor"  # the processor that the limits were set for; results on it must keep them


def scenario(name: str, work: Work, limits: dict[str, float] | None = None, dtype: str = "float32") -> Scenario:
    """Return a scenario with the built-in shapes of that name."""
    storage = {"stochastic_rounding": False} if dtype in ("bfloat16", "float16") else {}  # as the peers round
    return Scenario(name, parse_shapes(SHAPES[name]), dtype, work, limits or {}, storage, BESIDE_TORCH)


def lean(
    what: str, storage: dict[str, Any], limits: dict[str, float] | None = None, dtype: str = "float32"
) -> Scenario:
    """Return a step of 16 x 1 M with moments or weights in fewer bits, beside peers that have something alike."""
    name = "16 x 1 M"
    return Scenario(f"{name}, {what}", parse_shapes(SHAPES[name]), dtype, "step", limits or {}, storage, LEAN_PEERS)


def front(name: str, work: Work, limits: dict[str, float], *more: str) -> Scenario:
    """Return a scenario beside the peers that have a limit, and beside some more."""
    peers = (*more, *(peer for peer in limits if peer != FIRST))
    return Scenario(name, parse_shapes(SHAPES[name]), "float32", work, limits, {}, peers)


SCENARIOS = [
    scenario("48 tensors, 10 k", "phase", {BEST_TORCH: 1 / 8}),
    scenario("144 tensors, 0.6 M", "phase", {BEST_TORCH: 1 / 4}),
    scenario("144 tensors, 9.5 M", "phase", {BEST_TORCH: 1 / 1.85}),
    scenario("48 tensors, 10 k", "step", {BEST_TORCH: 0.20}),
    scenario("144 tensors, 0.6 M", "step", {BEST_TORCH: 0.50}),
    scenario("144 tensors, 9.5 M", "step"),
    scenario("16 x 1 M", "step", {BEST_TORCH: 1.05, MEMORY: 1.15}),
    scenario("16 x 1 M", "step", dtype="bfloat16"),
    scenario("16 x 1 M", "step", dtype="float16"),
    scenario("16 x 1 M", "step", dtype="float64"),
]

PACKED_LIMITS = {BEST_TORCH: 1.4, "bitsandbytes-8bit": 1 / 10, "torchao-8bit": 1 / 20}
LEAN = [
    lean("bfloat16 moments", {"state_dtype": "bfloat16"}, {BEST_TORCH: 1.05}),
    lean("packed16", {"state_dtype": "packed16"}, PACKED_LIMITS),
    lean("packed12", {"state_dtype": "packed12"}),
    lean(
        "24-bit masters, packed16", {"state_dtype": "packed16", "master_weight_bits": 24}, {BEST_TORCH: 1.7}, "bfloat16"
    ),
    lean("24-bit masters, packed12", {"state_dtype": "packed12", "master_weight_bits": 24}, dtype="bfloat16"),
    lean("32-bit masters, packed16", {"state_dtype": "packed16", "master_weight_bits": 32}, dtype="bfloat16"),
    lean("32-bit masters", {"master_weight_bits": 32}, dtype="bfloat16"),
    lean("stochastic rounding", {"stochastic_rounding": True}, dtype="bfloat16"),
    lean("stochastic rounding, packed16", {"state_dtype": "packed16"}, dtype="bfloat16"),
]

ONE_CALL = {"jax-fused": 1.05, "jax-adamw": 1.05}
FRONTS = [
    front("16 x 1 M", "step", {"numpy": 0.20, **ONE_CALL}),
    front("144 tensors, 0.6 M", "step", ONE_CALL, "numpy"),
    front("16 x 1 M", "ten steps", {"jax-fused": 0.80}),
    front("144 tensors, 0.6 M", "ten steps", {"jax-fused": 0.75}),
    front("16 x 1 M", "step", {"keras-fit": 0.40, "keras-xla": 1.10, FIRST: 2.0}),
    front("144 tensors, 0.6 M", "step", {"keras-fit": 0.75, "keras-xla": 1.10, FIRST: 2.0}),
]
