"""How both moments of a parameter are stored: a table of formats, each with its bytes and its bound.

A format turns two float32 arrays shaped (rows, columns) into named arrays and back. Rows are the parameter's first
dimension and nothing in the store of one row depends on another, so a store can be cut wherever the parameter can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from adamas.formats import packed
from adamas.formats.arrays import Array, cast, float_of, namespace
from adamas.formats.names import BITS, rows_and_columns
from adamas.formats.rounding import bfloat16_bits


class Part(NamedTuple):
    """One stored array: its dtype by name, and its shape for a parameter of that shape."""

    dtype: str
    shape: tuple[int, ...]


class Moments(Protocol):
    """What a format can do."""

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        """The arrays that are stored for a parameter of this shape, by name."""
        ...

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        """Store moments (rows, columns), float32, with 32 random bits an element; parts may be of another shape."""
        ...

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        """The moments (rows, columns), float32, of what is stored."""
        ...


class Bfloat16:
    """Each moment in bfloat16, rounded without bias: 4 bytes for both, each within 2**-7 of its value.

    The noise of v, whose memory is 1 / (1 - beta2) steps, settles at about .3 % * sqrt(1 / (1 - beta2**2)) of it.
    """

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        """See `Moments`."""
        return dict.fromkeys(("exp_avg", "exp_avg_sq"), Part("bfloat16", shape))

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        """See `Moments`: the patterns, 16 bits each, as integers; the upper random bits round v."""
        return {
            "exp_avg": bfloat16_bits(m, random & 0xFFFF),
            "exp_avg_sq": bfloat16_bits(v, random >> 16),
        }

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        """See `Moments`: of patterns."""
        m, v = (float_of((cast(stored[key], "int64") & 0xFFFF) << 16) for key in ("exp_avg", "exp_avg_sq"))
        return m, v


class Float16:
    """Each moment in float16 rounded to nearest, as torch keeps them beside float16 parameters; only for likeness.

    v below 3e-8 becomes 0, and where beta2 > .999 it no longer follows.
    """

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        """See `Moments`."""
        return dict.fromkeys(("exp_avg", "exp_avg_sq"), Part("float16", shape))

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        """See `Moments`; no random bits are used."""
        return {"exp_avg": cast(m, "float16"), "exp_avg_sq": cast(v, "float16")}

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        """See `Moments`."""
        return cast(stored["exp_avg"], "float32"), cast(stored["exp_avg_sq"], "float32")


class Packed:
    """Both moments in one word of 16 or 12 bits, and three float32 numbers a block: see `adamas.formats.packed`.

    Args:
        name: of the words among the parts.
        grid: how many bits each moment has.
    """

    def __init__(self, name: str, grid: packed.Grid) -> None:
        self.name, self.grid = name, grid

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        """See `Moments`: words of 16 bits keep the parameter's shape with their 2 bytes last, those of 12 fill rows."""
        rows, columns = rows_and_columns(shape)
        scale = Part("float32", (rows, -(-columns // packed.BLOCK)))
        words = (*shape, 2) if self._bits == 16 else (rows, columns + _nibbles(columns))
        return {
            self.name: Part("uint8", words),
            "exp_avg_scale": scale,
            "exp_avg_sq_low": scale,
            "exp_avg_sq_high": scale,
        }

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        """See `Moments`."""
        columns = m.shape[1]
        codes = packed.encode(self.grid, _blocks(m), _blocks(v), _blocks(random))
        words = (codes.v << self.grid.m_bits) | codes.m
        return {
            self.name: _bytes(words, columns) if self._bits == 16 else _bytes_and_halves(words, columns),
            "exp_avg_scale": codes.m_scale[..., 0],
            "exp_avg_sq_low": codes.v_low[..., 0],
            "exp_avg_sq_high": codes.v_high[..., 0],
        }

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        """See `Moments`."""
        count, raw = -(-columns // packed.BLOCK), cast(stored[self.name], "int64")
        words = _blocks(raw[..., 0] | (raw[..., 1] << 8) if self._bits == 16 else _joined(raw, columns))
        scale, low, high = (
            stored[key].reshape(-1, count, 1) for key in ("exp_avg_scale", "exp_avg_sq_low", "exp_avg_sq_high")
        )
        codes = packed.Codes(words >> self.grid.m_bits, words & ((1 << self.grid.m_bits) - 1), low, high, scale)
        m, v = (x.reshape(len(words), -1)[:, :columns] for x in packed.decode(self.grid, codes))
        return m, v

    @property
    def _bits(self) -> int:
        return self.grid.v_bits + self.grid.m_bits


def _blocks(x: Array) -> Array:
    """(rows, columns) as (rows, blocks, 256), with zeros at the end of a row: codes of zero, which no grid minds."""
    xp, (rows, columns) = namespace(x), x.shape
    missing = -columns % packed.BLOCK
    if missing:
        x = xp.concatenate((x, _zeros(x, missing)), axis=1)
    return x.reshape(rows, -1, packed.BLOCK)


def _zeros(x: Array, columns: int) -> Array:
    """Zeros beside the rows of x."""
    return namespace(x).zeros_like(namespace(x).broadcast_to(x[:, :1], (x.shape[0], columns)))


def _bytes(words: Array, columns: int) -> Array:
    """16-bit words as bytes, the low one first: (rows, columns, 2)."""
    words = words.reshape(words.shape[0], -1)[:, :columns]
    return cast(namespace(words).stack((words & 0xFF, words >> 8), -1), "uint8")


def _nibbles(columns: int) -> int:
    """How many bytes the halves of a row take: those of each block are paired within it."""
    full, tail = divmod(columns, packed.BLOCK)
    return full * packed.BLOCK // 2 + (tail + 1) // 2


def _bytes_and_halves(words: Array, columns: int) -> Array:
    """12-bit words as (rows, bytes): the upper 8 bits of all of a row's words, then the lower 4 of two in a byte.

    Those of a block of n words are paired within it: the byte j of its half bytes has word j's in its lower half and
    word j + ceil(n / 2)'s in its upper one.
    """
    xp, rows = namespace(words), words.shape[0]
    full, tail = divmod(columns, packed.BLOCK)
    flat = words.reshape(rows, -1)[:, :columns]
    lower = flat & 0xF
    cut, pairs = full * packed.BLOCK, []
    halves = lower[:, :cut].reshape(rows, full, 2, packed.BLOCK // 2)
    pairs.append((halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(rows, -1))
    if tail:
        first, second = lower[:, cut : cut + (tail + 1) // 2], lower[:, cut + (tail + 1) // 2 :]
        if tail % 2:
            second = xp.concatenate((second, _zeros(second if tail > 1 else first, 1)), axis=1)
        pairs.append(first | (second << 4))
    return cast(xp.concatenate((flat >> 4, *pairs), axis=1), "uint8")


def _joined(raw: Array, columns: int) -> Array:
    """The 12-bit words of `_bytes_and_halves`: (rows, columns)."""
    xp, rows = namespace(raw), raw.shape[0]
    full, tail = divmod(columns, packed.BLOCK)
    halves, cut = raw[:, columns:], full * packed.BLOCK // 2
    pairs = halves[:, :cut].reshape(rows, full, 1, packed.BLOCK // 2)
    lower = xp.concatenate((pairs & 0xF, pairs >> 4), axis=2).reshape(rows, -1)
    rest = halves[:, cut:]
    lower = xp.concatenate((lower, rest & 0xF, rest[:, : tail // 2] >> 4), axis=1)
    return (raw[:, :columns] << 4) | lower


MOMENTS: dict[str, Moments] = {
    "bfloat16": Bfloat16(),
    "float16": Float16(),
    "packed16": Packed("packed16", packed.Grid(*BITS["packed16"])),
    "packed12": Packed("packed12", packed.Grid(*BITS["packed12"])),
}
