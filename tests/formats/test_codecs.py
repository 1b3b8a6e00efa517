"""The codecs alone, on NumPy arrays: bounds that their docstrings derive, no bias, no row that knows another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adamas.formats import master, packed
from adamas.formats.arrays import bits_of, float_of
from adamas.formats.moments import MOMENTS
from adamas.formats.names import PARTS, rows_and_columns, why_wide
from adamas.formats.random_bits import for_weights, random_bits, step_key
from adamas.formats.rounding import bfloat16_bits, float16_value, stepped

Floats = NDArray[np.float32]
UNBIASED = ("bfloat16", "packed16", "packed12")
PACKED = ("packed16", "packed12")


def bits_for(shape: tuple[int, ...], step: int = 1, seed: int = 0) -> NDArray:
    return random_bits(step_key(seed, step), np.arange(np.prod(shape)).reshape(shape))


def kept(name: str, m: Floats, v: Floats, step: int = 1, seed: int = 0) -> tuple[Floats, Floats]:
    """What is left of moments that were stored once."""
    return MOMENTS[name].decode(MOMENTS[name].encode(m, v, bits_for(m.shape, step, seed)), m.shape[1])


def drawn(rows: int, columns: int, sigma: float, seed: int = 0) -> tuple[Floats, Floats]:
    """v lognormal, m = .3 sqrt(v) N(0, 1)."""
    random = np.random.default_rng(seed)
    v = np.exp(random.normal(0, sigma, (rows, columns)))
    return (0.3 * np.sqrt(v) * random.normal(0, 1, v.shape)).astype(np.float32), v.astype(np.float32)


# A block of 256 lognormal values with sigma 2 spans about 16 octaves. Piecewise linear in value, the spacing is between
# k / n * ln 2 .. k / n of v; unbiased rounding errs by a third of it in the mean, and sqrt(v) by half of that.
@pytest.mark.parametrize(("name", "limit"), [("packed16", 0.006), ("packed12", 0.025), ("bfloat16", 0.001)])
def test_mean_error_of_the_root(name: str, limit: float) -> None:
    m, v = drawn(64, 1024, 2.0)
    root = np.sqrt(kept(name, m, v)[1])
    assert np.mean(np.abs(root / np.sqrt(v) - 1)) <= limit


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("name", "limit"), [("packed16", 1.1), ("packed12", 1.4)])
def test_no_step_blows_up(name: str, limit: float, sigma: float) -> None:
    """The largest |m| / sqrt(v), also after a step with g = 0, against the exact one."""
    m, v = drawn(64, 1024, sigma)
    exact = np.abs(m / np.sqrt(v)).max()
    m, v = kept(name, m, v)
    assert np.abs(m / np.sqrt(v)).max() / exact <= limit
    m, v = kept(name, np.float32(0.9) * m, np.float32(0.999) * v, step=2)
    assert np.abs(m / np.sqrt(v)).max() / (exact * 0.9 / np.sqrt(0.999)) <= limit


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_seeds_is_the_number(name: str) -> None:
    """4,000 seeds: below 4 standard errors for all elements pooled, below 5 for the worst of 256."""
    m, v = drawn(1, 256, 2.0)
    seeds = 4000
    random = np.concatenate([bits_for((1, 256), seed=seed) for seed in range(seeds)])
    encoded = MOMENTS[name].encode(np.tile(m, (seeds, 1)), np.tile(v, (seeds, 1)), random)
    for found, exact in zip(MOMENTS[name].decode(encoded, 256), (m, v), strict=True):
        spread = found.astype(np.float64).std(0) / np.sqrt(seeds)
        off = found.astype(np.float64).mean(0) - exact[0]
        off = np.where(np.abs(off) < 2.0**-20 * np.abs(exact[0]), 0, off)  # float32's own, where hardly anything varies
        z = off / np.where(spread == 0, 1, spread)
        assert np.abs(z).max() < 5, f"{np.abs(z).max():.1f} standard errors"
        assert abs(z.mean()) * np.sqrt(256) < 4
        assert (spread > 0).mean() > 0.9  # something is rounded


def test_rounding_to_nearest_would_be_found() -> None:
    """With stuck random bits the same check fails by far: it can."""
    m, v = drawn(1, 256, 2.0)
    seeds = 4000
    shift = np.concatenate([bits_for((1, 256), seed=seed) for seed in range(seeds)]) >> 31 << 2  # only one bit, and low
    stuck = np.full((seeds, 256), 0x80008000) | shift
    encoded = MOMENTS["packed16"].encode(np.tile(m, (seeds, 1)), np.tile(v, (seeds, 1)), stuck)
    _, found = MOMENTS["packed16"].decode(encoded, 256)
    spacing = np.abs(found.mean(0) / v[0] - 1)
    assert np.median(spacing) > 10 * 0.02 / np.sqrt(seeds)


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("size", [-18, -9, -3, 0, 5, 10])
def test_every_magnitude_survives(name: str, size: int) -> None:
    """abs(g) from 1e-18 to 1e10: v is not 0 where float32's is not, and nothing is infinite."""
    random = np.random.default_rng(0)
    g = 10.0**size * random.normal(0, 1, (4, 1000))
    m, v = (0.1 * g).astype(np.float32), (0.001 * g * g).astype(np.float32)
    m_kept, v_kept = kept(name, m, v)
    assert np.isfinite(m_kept).all()
    assert np.isfinite(v_kept).all()
    if name != "bfloat16" or size > -18:  # 1e-39 is 11 steps from 0 in bfloat16
        assert ((v_kept == 0) == (v == 0)).all()
    assert (m_kept == 0).mean() < 0.2


@pytest.mark.parametrize("name", UNBIASED)
def test_zeros_stay_zero(name: str) -> None:
    m, v = drawn(2, 600, 1.0)
    m[:, ::3] = v[:, ::3] = 0
    m[1], v[1] = 0, 0
    m_kept, v_kept = kept(name, m, v)
    assert (m_kept[m == 0] == 0).all()
    assert ((v_kept == 0) == (v == 0)).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("name", PACKED)
def test_a_bad_moment_spoils_its_block_and_no_other(name: str, bad: float) -> None:
    m, v = drawn(3, 700, 1.0)
    clean = kept(name, m, v)
    m[1, 300] = v[1, 300] = bad
    spoiled = kept(name, m, v)
    block = np.zeros(m.shape, bool)
    block[1, 256:512] = True
    assert not np.isfinite(spoiled[0][block]).any()
    assert not np.isfinite(spoiled[1][1, 300])
    for mine, other in zip(spoiled, clean, strict=True):
        np.testing.assert_array_equal(mine[~block], other[~block])


@pytest.mark.parametrize("name", PACKED)
def test_an_infinite_second_moment_stays_infinite(name: str) -> None:
    """Whatever else is in its block: the square of a finite gradient above 6e20 overflows."""
    random = np.random.default_rng(0)
    v = np.repeat((random.uniform(1, 11, (2000, 1)) * 10.0 ** random.integers(-30, 38, (2000, 1))), 256, 1)
    v = v.astype(np.float32)
    v[:, 7] = np.inf
    m = np.sqrt(v) * np.float32(0.1)
    m[:, 7] = 1e24
    assert np.isinf(kept(name, m, v)[1][:, 7]).all()
    assert np.isfinite(kept(name, m, v)[1][:, 8:]).mean() > 0.99


def test_a_bad_bfloat16_moment_spoils_nothing_else() -> None:
    m, v = drawn(1, 300, 1.0)
    m[0, 7], v[0, 7], v[0, 8] = -np.inf, np.nan, np.inf
    m_kept, v_kept = kept("bfloat16", m, v)
    assert m_kept[0, 7] == -np.inf
    assert np.isnan(v_kept[0, 7])
    assert v_kept[0, 8] == np.inf
    assert np.isfinite(v_kept).sum() == 298


@pytest.mark.parametrize("columns", [64, 65, 255, 256, 257, 300, 511, 512, 1000])
@pytest.mark.parametrize("name", MOMENTS)
def test_rows_know_nothing_of_each_other(name: str, columns: int) -> None:
    """Any rows can be stored apart: shards may be uneven."""
    m, v = drawn(5, columns, 2.0)
    random = bits_for(m.shape)
    whole = MOMENTS[name].encode(m, v, random)
    for rows in (slice(0, 2), slice(2, 5)):
        part = MOMENTS[name].encode(m[rows], v[rows], random[rows])
        for key, value in part.items():
            np.testing.assert_array_equal(value, whole[key][rows])


@pytest.mark.parametrize("shape", [(8, 1024), (3, 300), (5, 257), (64, 64), (2, 3, 511), (1, 4096), (9, 95)])
@pytest.mark.parametrize("name", MOMENTS)
def test_numpy_and_torch_store_the_same(name: str, shape: tuple[int, ...]) -> None:
    m, v = drawn(*rows_and_columns(shape), 2.0)
    random = bits_for(m.shape)
    mine = MOMENTS[name].encode(m, v, random)
    theirs = MOMENTS[name].encode(torch.from_numpy(m), torch.from_numpy(v), torch.from_numpy(random))
    parts = MOMENTS[name].parts(shape)
    assert mine.keys() == theirs.keys() == parts.keys()
    for key, part in parts.items():
        np.testing.assert_array_equal(mine[key], theirs[key].numpy())
        assert np.prod(mine[key].shape) == np.prod(part.shape)
    for a, b in zip(MOMENTS[name].decode(mine, m.shape[1]), MOMENTS[name].decode(theirs, m.shape[1]), strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_jax_stores_the_same() -> None:
    jax = pytest.importorskip("jax.numpy")
    m, v = drawn(3, 300, 2.0)
    index = np.arange(m.size).reshape(m.shape)
    for name in UNBIASED:
        mine = MOMENTS[name].encode(m, v, random_bits(step_key(0, 1), index))
        random = random_bits(step_key(0, 1), jax.asarray(index.astype(np.uint32)))
        theirs = MOMENTS[name].encode(jax.asarray(m), jax.asarray(v), random)
        for key in mine:  # XLA divides by a constant as it likes: scales may differ in the last place
            np.testing.assert_allclose(
                mine[key], np.asarray(theirs[key]), rtol=2.0**-22 * (mine[key].dtype == np.float32)
            )


def test_parts_are_named_as_the_kernels_know_them() -> None:
    assert {name: tuple(moments.parts((8, 1024))) for name, moments in MOMENTS.items()} == {
        name: parts for name, parts in PARTS.items() if name != "wide"
    }


def test_bytes_a_parameter() -> None:
    width = {"uint8": 1, "bfloat16": 2, "float16": 2, "float32": 4}
    found = {
        name: sum(np.prod(part.shape) * width[part.dtype] for part in moments.parts((1024, 1024)).values()) / 1024**2
        for name, moments in MOMENTS.items()
    }
    assert found == {"bfloat16": 4, "float16": 4, "packed16": 2 + 12 / 256, "packed12": 1.5 + 12 / 256}


@pytest.mark.parametrize(
    ("shape", "sharded", "why"),
    [
        ((8, 512), False, None),
        ((8, 511), False, "fewer than 4,096 elements"),
        ((1024, 8), True, None),
        ((1024, 7), False, "rows under 8 elements"),
        ((64, 8, 3, 3), False, None),
        ((4096,), False, "one dimension under 65,536 elements"),
        ((65_536,), False, None),
        ((65_536,), True, "one dimension, sharded"),
    ],
)
def test_small_and_narrow_tensors_are_not_worth_it(shape: tuple[int, ...], sharded: bool, why: str | None) -> None:
    assert why_wide("bfloat16", shape, sharded) == why


def test_words_of_twelve_bits_lie_as_documented() -> None:
    """The upper 8 bits of each word of a row, then two lower halves in a byte, paired within their block."""
    m, v = drawn(1, 259, 1.0)
    random = bits_for(m.shape)
    stored = MOMENTS["packed12"].encode(m, v, random)["packed12"][0].astype(int)
    assert len(stored) == 259 + 128 + 2
    words = []
    for block, half in ((slice(0, 256), 128), (slice(256, 259), 2)):
        codes = packed.encode(packed.Grid(7, 5), m[:, block], v[:, block], random[:, block])
        block_words = ((codes.v << 5) | codes.m)[0]
        words.append(block_words)
        halves = stored[259 + block.start // 2 :][:half]
        assert (halves & 15 == block_words[:half] & 15).all()
        assert (halves[: len(block_words) - half] >> 4 == block_words[half:] & 15).all()
    assert (stored[:259] == np.concatenate(words) >> 4).all()


class TestRounding:
    def weights(self) -> Floats:
        random = np.random.default_rng(1)
        return (random.normal(0, 1, 50_000) * np.exp(random.normal(0, 5, 50_000))).astype(np.float32)

    @pytest.mark.parametrize(("cut", "bound"), [(8, 2.0**-15), (16, 2.0**-7)])
    def test_error_is_below_the_spacing_and_has_no_mean(self, cut: int, bound: float) -> None:
        weight = self.weights()
        change = (weight * np.random.default_rng(2).normal(0, 0.1, weight.shape)).astype(np.float32)
        found = stepped(weight, change, for_weights(bits_for(weight.shape)), cut)
        exact = weight.astype(np.float64) - change
        error = (found - exact) / np.abs(exact)
        assert np.abs(error).max() < bound * 1.0001
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
        assert (bits_of(found) & ((1 << cut) - 1) == 0).all()

    @pytest.mark.parametrize("cut", [8, 13, 16])
    def test_without_a_change_nothing_moves(self, cut: int) -> None:
        weight = float_of(bits_of(self.weights()) & ~((1 << cut) - 1))
        weight[:6] = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5)
        for step in range(1, 50):
            found = stepped(weight, np.zeros_like(weight), for_weights(bits_for(weight.shape, step)), cut)
            np.testing.assert_array_equal(bits_of(found), bits_of(weight))

    @pytest.mark.parametrize("cut", [8, 16])
    @pytest.mark.parametrize("weight", [1.0, -1.0, 0.75, 1.9921875, 3.0e-30])
    @pytest.mark.parametrize("relative", [1e-6, -1e-6, 3e-7])
    def test_a_constant_weight_moves_by_its_change_in_the_mean(self, weight: float, relative: float, cut: int) -> None:
        """Powers of two, where the spacing changes, among them; a change of 17 to 5 units of float32's last place."""
        count = 2_000_000
        x = float_of(bits_of(np.full(count, weight, np.float32)) & ~((1 << cut) - 1))
        change = (x * np.float32(relative)).astype(np.float32)
        found = stepped(x, change, for_weights(bits_for((count,), 3)), cut).astype(np.float64)
        moved = np.mean(x[0].astype(np.float64) - found) / np.float64(change[0])
        spacing = abs(weight) * 2.0 ** (cut - 23)
        assert moved == pytest.approx(1, abs=4 * np.sqrt(spacing / abs(weight * relative) / count) + 0.002)

    def test_a_weight_of_zero_takes_a_step_without_bias(self) -> None:
        change = np.full(100_000, 3.3e-3, np.float32)
        found = stepped(np.zeros_like(change), change, for_weights(bits_for(change.shape)), 16)
        assert -found.astype(np.float64).mean() == pytest.approx(3.3e-3, rel=1e-4)

    def test_float16_below_its_normal_range(self) -> None:
        weight = (np.random.default_rng(0).normal(0, 1e-5, 50_000)).astype(np.float32)
        found = float16_value(weight, np.float32(1e-7) * np.ones_like(weight), for_weights(bits_for(weight.shape)))
        np.testing.assert_array_equal(found.astype(np.float16).astype(np.float32), found)
        error = found - (weight.astype(np.float64) - np.float64(np.float32(1e-7)))
        assert np.abs(error).max() < 2.0**-24 * 1.0001
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))

    def test_endless_numbers_stay(self) -> None:
        x = np.array([np.inf, -np.inf, np.nan], np.float32)
        found = float_of(bfloat16_bits(x, np.array([0xFFFF, 0xFFFF, 0xFFFF])) << 16)
        np.testing.assert_array_equal(found, x)

    def test_random_bits_depend_on_each_of_their_three(self) -> None:
        index = np.arange(4096)
        base = random_bits(step_key(0, 1), index)
        for other in (random_bits(step_key(1, 1), index), random_bits(step_key(0, 2), index), for_weights(base)):
            assert np.mean(base == other) < 1e-3
            assert abs(np.corrcoef(base, other)[0, 1]) < 0.06
        beyond = random_bits(step_key(0, 1), index + (1 << 32))
        assert np.mean(base == beyond) < 1e-3
        assert random_bits(step_key(2**70 + 5, 1), index).tolist() == random_bits(step_key(5, 1), index).tolist()
        assert step_key(-1, 1) != step_key(1, 1)


class TestMasters:
    def test_32_bits_are_exact(self) -> None:
        bits = np.random.default_rng(0).integers(0, 2**32, 200_000)
        weight = float_of(bits)
        with np.errstate(all="ignore"):
            found = master.join(*master.split(weight, 32), 32)
        finite = np.isfinite(weight)
        np.testing.assert_array_equal(bits_of(found)[finite], bits_of(weight)[finite])
        np.testing.assert_array_equal(np.isnan(found), np.isnan(weight))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(weight))

    def test_the_parameter_is_the_weight_rounded_to_bfloat16(self) -> None:
        weight = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
        high, _ = master.split(weight, 32)
        assert np.abs(float_of(high << 16) / weight - 1).max() <= 2.0**-8

    @pytest.mark.parametrize("width", [24, 32])
    def test_a_weight_changed_by_hand_is_what_it_was_changed_to(self, width: int) -> None:
        """Low bits of the old weight move it by less than half a last place of bfloat16, and make no NaN."""
        weight = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
        _, low = master.split(weight, width)
        for value in (0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -3.0):
            high = np.full(low.shape, int(bits_of(np.array([value], np.float32))[0] >> 16))
            found = master.join(high, low, width)
            if np.isfinite(value):
                assert (np.abs(found - value) <= max(2.0**-8 * abs(value), 2.0**-130)).all()
            else:
                finite = np.isfinite(found)  # an infinity above the largest number that is rounded up to it
                assert (np.abs(found[finite]) > 3.38e38).all()
                np.testing.assert_array_equal(found[~finite], np.full(np.sum(~finite), value, np.float32))

    def test_24_bits_to_nearest(self) -> None:
        weight = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
        near = master.nearest24(weight)
        np.testing.assert_array_equal(master.join(*master.split(near, 24), 24), near)
        assert np.abs(near / weight - 1).max() <= 2.0**-16
