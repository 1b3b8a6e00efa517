"""Storage of moments and master weights in fewer bits, for any array library. Nothing here knows an optimizer.

    packed.py       both moments of a block in one word: v on a logarithmic grid, m in units of sqrt(v)
    moments.py      the table of formats (bfloat16, float16, packed16, packed12) and the arrays that each stores
    master.py       a bfloat16 parameter and its low bits: together a weight of 24 or 32 bits
    rounding.py     stochastic rounding of float32 to fewer bits
    random_bits.py  the random bits for that rounding, from a stateless hash
    names.py        names and sizes, for modules that must not load the codecs
    arrays.py       array operations that NumPy, torch and JAX name differently
    stored.py       the tensors in a state <-> float32 moments and weights

These functions are the specification: the kernels are tested against them, bit for bit.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamas.formats import stored as stored


def __getattr__(name: str) -> Any:
    """Import `stored`, and with it the codecs, at its first use: plain float32 training never needs them."""
    if name == "stored":
        from importlib import import_module

        return import_module("adamas.formats.stored")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
