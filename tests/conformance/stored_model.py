"""What a step in fewer bits must do, bit for bit: the native rule's operations in NumPy float32 between the codecs.

NumPy's float32 operations round after each, as the kernels' do, so there is nothing to tolerate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adamas.formats import master, rounding
from adamas.formats.arrays import bits_of, float_of
from adamas.formats.moments import MOMENTS
from adamas.formats.names import rows_and_columns
from adamas.formats.random_bits import Key, for_weights, random_bits
from adamas.kernels.bucket import Storage
from adamas.scalars import StepScalars

Floats = NDArray[np.float32]
f32 = np.float32


@dataclass
class Model:
    """One parameter with its state, as patterns.

    Args:
        storage: how moments and weight are stored.
        dtype: "float32", "bfloat16" or "float16".
        param: float32 where dtype is, else patterns of 16 bits (uint16).
    """

    storage: Storage
    dtype: str
    param: NDArray
    state: dict[str, NDArray] = field(default_factory=dict)

    def floats(self, patterns: NDArray) -> Floats:
        if self.dtype == "bfloat16":
            return float_of(patterns.astype(np.int64) << 16)
        return patterns.view(np.float16).astype(f32) if self.dtype == "float16" else patterns

    def weight(self) -> Floats:
        if self.storage.master_bits:
            return master.join(self.param.astype(np.int64), self.state["param_low"], self.storage.master_bits)
        return self.floats(self.param)

    def moments(self) -> tuple[Floats, Floats]:
        if self.storage.moments == "wide":
            return self.state["exp_avg"], self.state["exp_avg_sq"]
        _, columns = rows_and_columns(self.param.shape)
        m, v = MOMENTS[self.storage.moments].decode(self.state, columns)
        return m.reshape(self.param.shape), v.reshape(self.param.shape)

    def begin(self) -> Model:
        """Zero moments and low bits."""
        shape = self.param.shape
        parts = MOMENTS[self.storage.moments].parts(rows_and_columns(shape)) if self.storage.moments != "wide" else {}
        kinds = {"bfloat16": np.uint16, "uint8": np.uint8, "float32": f32}
        self.state = {key: np.zeros(part.shape, kinds[part.dtype]) for key, part in parts.items()}
        if not parts:
            self.state = {"exp_avg": np.zeros(shape, f32), "exp_avg_sq": np.zeros(shape, f32)}
        if self.storage.master_bits:
            self.state["param_low"] = np.zeros(shape, np.int8 if self.storage.master_bits == 24 else np.int16)
        return self

    @np.errstate(all="ignore")
    def step(self, grad: NDArray, scalars: StepScalars) -> None:
        """One step, as native/rule.hpp computes it."""
        s = {k: f32(x) for k, x in scalars._asdict().items() if isinstance(x, float | int)}
        theta, (m, v) = self.weight(), self.moments()
        g = self.floats(grad) * s["grad_factor"]
        if scalars.l2 != 0:
            g = g + s["l2"] * theta
        m = mean(m, g, s["beta1"], s["beta1_complement"])
        v = s["beta2"] * v + (s["beta2_complement"] * g) * g
        second = v
        if scalars.amsgrad:
            second = self.state["max_exp_avg_sq"] = np.maximum(self.state["max_exp_avg_sq"], v * s["max_factor"])
        change = s["step_size"] * (m / (np.sqrt(second + s["eps_root"]) + s["eps"]))
        if scalars.decay != 0:
            largest = np.finfo(f32).max
            decay = s["decay"] * np.clip(theta, -largest, largest)
            change = change + np.where(scalars.cautious & (np.sign(m) * np.sign(theta) < 0), f32(0), decay)
        self._store(m, v, theta, change, scalars)
        if "ema" in self.state:
            self.average(scalars)

    @np.errstate(all="ignore")
    def average(self, scalars: StepScalars) -> None:
        """Let the average of the weights, as they are stored, go on."""
        old, new = self.state["ema"], self.weight()
        weight = f32(scalars.average)
        self.state["ema"] = new if weight == 1 else mean(old, new, f32(1 - scalars.average), weight)

    def _store(self, m: Floats, v: Floats, weight: Floats, change: Floats, scalars: StepScalars) -> None:
        index = np.arange(weight.size).reshape(weight.shape)
        random = random_bits(scalars.random or Key(0, 0), index)
        if self.storage.moments == "wide":
            self.state |= {"exp_avg": m, "exp_avg_sq": v}
        else:
            shape = rows_and_columns(weight.shape)
            operands = (x.reshape(shape) for x in (m, v, random))
            self.state |= MOMENTS[self.storage.moments].encode(*operands)
        if not scalars.moves:
            return
        bits, random = self.storage.master_bits, for_weights(random)
        if not self.storage.stochastic:
            weight = weight - change
        if bits:
            if self.storage.stochastic:
                weight = rounding.stepped(weight, change, random, 8)
            elif bits == 24:
                weight = master.nearest24(weight)
            high, self.state["param_low"] = master.split(weight, bits)
            self.param = high.astype(np.uint16)
        elif not self.storage.stochastic:
            self.param = patterns(weight, self.dtype)
        elif self.dtype == "bfloat16":
            self.param = (bits_of(rounding.stepped(weight, change, random, 16)) >> 16).astype(np.uint16)
        else:
            self.param = rounding.float16_value(weight, change, random).astype(np.float16).view(np.uint16)

    def same_bits(self, name: str, other: NDArray) -> bool:
        """Whether a stored array ("param" for the parameter) has these bytes."""
        mine = self.param if name == "param" else self.state[name]
        mine = mine.astype(np.uint16) if mine.dtype == np.int64 else mine
        return np.ascontiguousarray(mine).tobytes() == np.ascontiguousarray(other).tobytes()


def mean(old: Floats, value: Floats, keep: np.float32, weight: np.float32) -> Floats:
    """An exponential moving average in the form that errs less: see native/adamas.hpp."""
    return old + weight * (value - old) if keep >= 0.5 else keep * old + weight * (value - f32(0) * old)


def patterns(x: Floats, dtype: str) -> NDArray:
    """float32 numbers rounded to nearest in a dtype of 16 bits, as patterns; float32 as they are."""
    if dtype == "bfloat16":
        bits = bits_of(x)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return x.astype(np.float16).view(np.uint16) if dtype == "float16" else x
