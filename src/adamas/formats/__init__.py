"""How moments and master weights are stored in fewer bits, for any array library. No optimizer in here.

    packed.py       a block of both moments: v on a logarithmic grid, m in units of sqrt(v)
    moments.py      the table of formats: bfloat16, packed16, packed12, and their bytes
    master.py       bfloat16 parameters with the bits they lack: 24 and 32 bits
    rounding.py     float32 to fewer bits without bias
    random_bits.py  the random bits of all that, a hash without a state
    names.py        what the rest of the library asks without loading any of that
    arrays.py       what NumPy, torch and JAX call the same things
    stored.py       torch's tensors in a state <-> float32 moments and weights, through the codecs above

These functions are the specification; the kernels are tested against them, bit for bit.
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
