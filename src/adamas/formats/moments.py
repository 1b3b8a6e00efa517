"""The table of formats for both moments of a parameter: which arrays each stores, and its codec.

A format encodes two float32 arrays shaped (rows, columns) as named arrays, and decodes them. Rows are the parameter's
first dimension. No row's stored bytes depend on another row, so stored moments can be sharded wherever the parameter
can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from adamas.formats import packed
from adamas.formats.arrays import Array, cast, float_of, namespace
from adamas.formats.names import BITS, GRIDS, WIDE, rows_and_columns
from adamas.formats.rounding import bfloat16_bits


class Part(NamedTuple):
    """The dtype, by name, and the shape of one stored array."""

    dtype: str
    shape: tuple[int, ...]


class Moments(Protocol):
    """The codec of one format."""

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        """Return the stored arrays, by name, for a parameter of this shape."""
        ...

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        """Encode float32 moments (rows, columns), with 32 random bits an element.

        A result has the elements of its part, perhaps in another shape, and bfloat16 as the integers of its patterns.
        """
        ...

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        """Return the float32 moments (rows, columns) of stored arrays, with bfloat16 given as integers."""
        ...


class _Separate:
    """Each moment in its own array of 16 bits, 4 bytes a parameter for both.

    bfloat16 is rounded stochastically, each moment to within 2**-7 of its value. The noise of v, which remembers
    1 / (1 - beta2) steps, settles at about .3 % * sqrt(1 / (1 - beta2**2)) of v.

    float16 is rounded to nearest, as torch stores the moments of float16 parameters; it exists only to reproduce torch.
    v below 3e-8 becomes 0, and with beta2 > .999 v stops following the gradients.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        return dict.fromkeys(WIDE, Part(self._dtype, shape))

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        if self._dtype == "float16":
            return {"exp_avg": cast(m, "float16"), "exp_avg_sq": cast(v, "float16")}
        return {"exp_avg": bfloat16_bits(m, random & 0xFFFF), "exp_avg_sq": bfloat16_bits(v, random >> 16)}

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        m, v = (stored[name] for name in WIDE)
        if self._dtype == "float16":
            return cast(m, "float32"), cast(v, "float32")
        m, v = (float_of((cast(x, "int64") & 0xFFFF) << 16) for x in (m, v))
        return m, v


class _Packed:
    """Both moments in one word of 16 or 12 bits, and three float32 numbers for each block: `adamas.formats.packed`.

    Words of 16 bits keep the parameter's shape, with their 2 bytes as a last dimension. Words of 12 bits fill rows.
    """

    def __init__(self, name: str) -> None:
        self._name, self._grid = name, packed.Grid(*BITS[name])
        self._in_bytes = sum(self._grid) == 16

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        rows, columns = rows_and_columns(shape)
        scale = Part("float32", (rows, -(-columns // packed.BLOCK)))
        words = (*shape, 2) if self._in_bytes else (rows, columns + _half_bytes(columns))
        return {self._name: Part("uint8", words), **dict.fromkeys(GRIDS, scale)}

    def encode(self, m: Array, v: Array, random: Array) -> dict[str, Array]:
        columns = m.shape[1]
        codes = packed.encode(self._grid, _blocks(m), _blocks(v), _blocks(random))
        words = ((codes.v << self._grid.m_bits) | codes.m).reshape(m.shape[0], -1)[:, :columns]
        stored = _split16(words) if self._in_bytes else _split12(words)
        grids = (codes.m_scale[..., 0], codes.v_low[..., 0], codes.v_high[..., 0])
        return {self._name: stored, **dict(zip(GRIDS, grids, strict=True))}

    def decode(self, stored: Mapping[str, Array], columns: int) -> tuple[Array, Array]:
        count, raw = -(-columns // packed.BLOCK), cast(stored[self._name], "int64")
        words = _blocks(raw[..., 0] | (raw[..., 1] << 8) if self._in_bytes else _join12(raw, columns))
        scale, low, high = (stored[key].reshape(-1, count, 1) for key in GRIDS)
        codes = packed.Codes(words >> self._grid.m_bits, words & ((1 << self._grid.m_bits) - 1), low, high, scale)
        m, v = (x.reshape(len(words), -1)[:, :columns] for x in packed.decode(self._grid, codes))
        return m, v


def _blocks(x: Array) -> Array:
    """Reshape (rows, columns) to (rows, blocks, 256), filled up with zeros: they change no grid and have code 0."""
    missing = -x.shape[1] % packed.BLOCK
    if missing:
        x = namespace(x).concatenate((x, _zeros(x, missing)), axis=1)
    return x.reshape(x.shape[0], -1, packed.BLOCK)


def _zeros(x: Array, columns: int) -> Array:
    """Return zeros with the rows and the dtype of x, and as many columns."""
    return namespace(x).zeros_like(namespace(x).broadcast_to(x[:, :1], (x.shape[0], columns)))


def _split16(words: Array) -> Array:
    """Split 16-bit words into bytes, the low one first: (rows, columns, 2)."""
    return cast(namespace(words).stack((words & 0xFF, words >> 8), -1), "uint8")


def _half_bytes(columns: int) -> int:
    """Return how many bytes the lower 4 bits of a row's 12-bit words take; words of one block share bytes."""
    full, tail = divmod(columns, packed.BLOCK)
    return full * packed.BLOCK // 2 + (tail + 1) // 2


def _split12(words: Array) -> Array:
    """Split 12-bit words into (rows, bytes): the upper 8 bits of all words of a row, then the lower 4 bits of two each.

    In a block of n words, byte j of the second part has the lower bits of word j in its lower half, and those of word
    j + ceil(n / 2) in its upper half.
    """
    xp, (rows, columns) = namespace(words), words.shape
    full, tail = divmod(columns, packed.BLOCK)
    lower, cut = words & 0xF, full * packed.BLOCK
    halves = lower[:, :cut].reshape(rows, full, 2, packed.BLOCK // 2)
    pairs = [(halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(rows, -1)]
    if tail:
        middle = cut + (tail + 1) // 2
        first, second = lower[:, cut:middle], lower[:, middle:]
        if tail % 2:
            second = xp.concatenate((second, _zeros(first, 1)), axis=1)
        pairs.append(first | (second << 4))
    return cast(xp.concatenate((words >> 4, *pairs), axis=1), "uint8")


def _join12(raw: Array, columns: int) -> Array:
    """Join the bytes of `_split12` to 12-bit words: (rows, columns)."""
    xp, rows = namespace(raw), raw.shape[0]
    full, tail = divmod(columns, packed.BLOCK)
    halves, cut = raw[:, columns:], full * packed.BLOCK // 2
    pairs = halves[:, :cut].reshape(rows, full, 1, packed.BLOCK // 2)
    lower = xp.concatenate((pairs & 0xF, pairs >> 4), axis=2).reshape(rows, -1)
    rest = halves[:, cut:]
    lower = xp.concatenate((lower, rest & 0xF, rest[:, : tail // 2] >> 4), axis=1)
    return (raw[:, :columns] << 4) | lower


MOMENTS: dict[str, Moments] = {
    "bfloat16": _Separate("bfloat16"),
    "float16": _Separate("float16"),
    "packed16": _Packed("packed16"),
    "packed12": _Packed("packed12"),
}
