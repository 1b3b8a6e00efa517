"""`adamas.numpy`: the rule, in place, over dicts, lists and single arrays."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import adamas.numpy as front
import adamas.torch
from adamas.kernels import arrays
from tests.conftest import needs_native
from tests.frameworks import trajectory

KERNELS = ["numpy", pytest.param("native", marks=needs_native)]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(arrays, "native", None)
    return request.param


def optimizer_for(params: Any, values: dict[str, Any]) -> front.Adam:
    values = dict(values)
    values.pop("base_lr", None)  # the lr at construction
    betas = (values.pop("beta1", 0.9), values.pop("beta2", 0.999))
    amsgrad = values.pop("amsgrad", "off") == "raw"
    decoupled = values.get("decay", "l2") != "l2"
    cls = front.AdamW if decoupled else front.Adam
    return cls(params, betas=betas, amsgrad=amsgrad, **{"weight_decay": 0.0, **values})


def run(params: list[np.ndarray], grads: list[list[np.ndarray]], values: dict[str, Any]) -> list[np.ndarray]:
    optimizer = optimizer_for(params, values)
    for each in grads:
        optimizer.step(each)
    return params


MORE = {"maximize": {"maximize": True, "weight_decay": 0.1}, "no-momentum": {"beta1": 0.0}}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", [*trajectory.SHARED, *MORE])
def test_one_trajectory(case: str, dtype: str, kernel: str) -> None:
    trajectory.check(run, {**trajectory.SHARED, **MORE}[case], dtype)


LEAN = [
    {"state_dtype": "bfloat16"},
    {"state_dtype": "packed16"},
    {"state_dtype": "packed12", "master_weight_bits": 24},
    {"master_weight_bits": 32},
    {"stochastic_rounding": False},
    {"stochastic_rounding": True, "ema_decay": 0.9, "max_norm": 0.5},
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", LEAN, ids=lambda options: "-".join(map(str, options.values())))
def test_formats_have_the_bits_of_the_torch_front(dtype: str, options: dict[str, Any], kernel: str) -> None:
    """The same kernel, random bits and codecs; NumPy's operations differ from it in the last place."""
    draw = np.random.default_rng(0)
    start, grads = draw.normal(size=(24, 300)).astype("f4"), draw.normal(size=(4, 24, 300)).astype("f4")
    mine = start.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    theirs = torch.nn.Parameter(torch.tensor(start).to(getattr(torch, dtype)))
    first = front.AdamW({"w": mine}, lr=1e-2, **options)
    second = adamas.torch.AdamW([theirs], lr=1e-2, **options)
    for grad in grads:
        first.step({"w": grad.astype(mine.dtype)})
        theirs.grad = torch.tensor(grad).to(theirs.dtype)
        second.step()
    right = theirs.detach().float().numpy()
    if kernel == "native":
        np.testing.assert_array_equal(mine.astype("f4"), right)
        m, v = second.moments(theirs)
        np.testing.assert_array_equal(first.moments()[0]["w"], m.numpy())
        np.testing.assert_array_equal(first.moments()[1]["w"], v.numpy())
    else:
        # A rounding that falls on the other side moves a weight by one place of bfloat16 at |w| < 4.
        assert np.max(np.abs(mine.astype("f4") - right)) <= (2.0**-6 if dtype == "bfloat16" else 1e-5)
        assert np.mean(mine.astype("f4") != right) < (0.3 if dtype == "float32" else 1e-3)


def test_structures(kernel: str) -> None:
    params = {"layers": [{"w": np.ones((2, 3)), "b": np.zeros(3)}, {"w": np.ones(4)}], "scale": np.array(2.0)}
    optimizer = front.AdamW(params, lr=0.1, weight_decay=0.5)
    optimizer.step({"layers": [{"w": np.ones((2, 3)), "b": None}, {"w": np.zeros(4)}], "scale": 3.0})
    np.testing.assert_allclose(params["layers"][0]["w"], 0.95 - 0.1, rtol=1e-7)
    np.testing.assert_allclose(params["layers"][1]["w"], 0.95, rtol=1e-7)
    np.testing.assert_allclose(params["scale"], 1.9 - 0.1, rtol=1e-7)
    assert not params["layers"][0]["b"].any()
    saved = optimizer.state_dict()
    assert saved["step"] == {"layers/0/w": 1, "layers/0/b": 0, "layers/1/w": 1, "scale": 1}


@pytest.mark.parametrize("order", ["C", "F", "strided", "misaligned", "transposed"])
def test_memory_orders(order: str, kernel: str) -> None:
    values = np.random.default_rng(0).normal(size=(6, 4, 5))
    right, grad = values.copy(), np.random.default_rng(1).normal(size=values.shape)
    if order == "strided":
        param = np.full((6, 4, 10), 7.0)[..., ::2]
    elif order == "misaligned":
        param = np.frombuffer(bytearray(values.nbytes + 1), np.uint8)[1:].view(np.float64).reshape(values.shape)
    elif order == "transposed":
        param = np.empty((4, 6, 5)).transpose(1, 0, 2)
    else:
        param = np.empty(values.shape, order=order)
    param[...] = values
    for array, layout in ((param, "F"), (right, "C")):
        optimizer = front.Adam(array, lr=0.1)
        for _ in range(3):
            optimizer.step(np.array(grad, order=layout))
    np.testing.assert_allclose(param, right, rtol=1e-14)
    if order == "strided":
        assert (param.base[..., 1::2] == 7.0).all(), "the numbers in between are not the optimizer's"


def test_schedules_and_clipping() -> None:
    param, right = np.array([1.0, -2.0]), torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    mine, theirs = front.AdamW(param, max_norm=1.0), torch.optim.AdamW([right])
    for t in range(20):
        mine.lr = theirs.param_groups[0]["lr"] = 1e-2 * (1 + t)
        grad = np.array([3.0, 4.0]) * (t + 1)
        mine.step(grad)
        right.grad = torch.tensor(grad)
        torch.nn.utils.clip_grad_norm_([right], 1.0)
        theirs.step()
        assert mine.grad_norm == pytest.approx(5.0 * (t + 1), rel=1e-15)
    np.testing.assert_allclose(param, right.detach().numpy(), rtol=1e-13)


def test_a_list_of_gradients_must_have_its_length() -> None:
    optimizer = front.Adam({"layers": [np.ones(2), np.ones(2)]})
    with pytest.raises(ValueError, match="grads/layers has 1 entries for 2 parameters"):
        optimizer.step({"layers": [np.ones(2)]})
    optimizer.step({"layers": [np.ones(2), None]})


def test_average_and_lr_zero(kernel: str) -> None:
    param = np.array([1.0, 2.0])
    optimizer = front.AdamW([param], lr=0.0, ema_decay=0.9)
    optimizer.step([np.array([np.inf, 1.0])])
    np.testing.assert_array_equal(param, [1.0, 2.0])
    optimizer.lr = 0.1
    optimizer.step([np.array([1.0, 1.0])])
    assert param[1] < 2.0
    np.testing.assert_allclose(optimizer.averages()[0][1], 2.0 * 0.9 + 0.1 * param[1], rtol=1e-12)


def test_resume_is_bitwise(kernel: str) -> None:
    draw = np.random.default_rng(0)
    grads = draw.normal(size=(8, 20, 300)).astype("f4")
    start = draw.normal(size=(20, 300)).astype("f4")
    whole, half = start.copy(), start.copy()
    options: dict[str, Any] = {"lr": 1e-2, "state_dtype": "packed16", "ema_decay": 0.9}
    one, first = front.AdamW({"w": whole}, **options), front.AdamW({"w": half}, **options)
    for grad in grads:
        one.step({"w": grad})
    for grad in grads[:4]:
        first.step({"w": grad})
    second = front.AdamW({"w": half}, **{**options, "lr": 0.5})
    second.load_state_dict(first.state_dict())
    assert second.lr == 1e-2
    for grad in grads[4:]:
        second.step({"w": grad})
    np.testing.assert_array_equal(whole, half)


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ([1.0], {}, "must be NumPy arrays"),
        (np.zeros(3, np.int64), {}, "int64: parameters must be one of"),
        (np.zeros(3, ">f4"), {}, "parameters must be one of"),
        (np.broadcast_to(np.zeros(1), 3), {}, "read-only"),
        ({"a/b": np.zeros(1), "a": {"b": np.zeros(1)}}, {}, "two parameters are called a/b"),
        ([np.zeros(3)] * 2, {}, "share memory"),
        (np.zeros(3), {"lr": -1.0}, "Invalid learning rate: -1.0"),
        (np.zeros(3), {"lr": "1e-3"}, "is a str"),
        (np.zeros(3), {"betas": 0.9}, "must be a pair"),
        (np.zeros(3), {"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
        (np.zeros(3), {"decay": "independent"}, "needs weight_decay given"),
        (np.zeros(3), {"decay": "l2"}, "for L2 in the gradient use Adam"),
        (np.zeros(3), {"max_norm": 0.0}, "max_norm"),
        (np.zeros((64, 64), "f4"), {"state_dtype": "packed16", "amsgrad": True}, "a running maximum climbs"),
        (np.zeros((64, 64), "f2"), {"master_weight_bits": 24}, "Use bfloat16 parameters"),
    ],
)
def test_bad_arguments(params: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        front.AdamW(params, **options)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"w": np.zeros(4)}, r"shape \(4,\), the parameter \(3,\)"),
        ({"w": np.zeros(3), "x": np.zeros(3)}, "no such parameter"),
        ({"w": np.zeros(3, complex)}, "must be real numbers"),
    ],
)
def test_bad_gradients_change_nothing(grads: Any, message: str, kernel: str) -> None:
    param = np.ones(3)
    optimizer = front.AdamW({"w": param})
    with pytest.raises(ValueError, match=message):
        optimizer.step(grads)
    assert (param == 1).all()
    assert optimizer.state_dict()["step"] == {"w": 0}


def test_a_bad_state_is_refused_and_nothing_loaded() -> None:
    param = np.ones(3)
    optimizer = front.AdamW({"w": param})
    optimizer.step({"w": np.ones(3)})
    good = optimizer.state_dict()
    for change in (
        {"step": {"w": -1}},
        {"state": {"w": {**good["state"]["w"], "exp_avg": np.zeros(4)}}},
        {"state": {"v": good["state"]["w"]}, "step": {"v": 1}},
        {"state": {"w": {}}},
        {"hyper": {"lr": -1.0, "weight_decay": 0.0}},
    ):
        with pytest.raises(ValueError, match=r"w|v|learning rate"):
            optimizer.load_state_dict({**good, **change})
    assert optimizer.state_dict()["step"] == {"w": 1}


@needs_native
def test_what_became_unusable_is_refused_before_anything_is_written() -> None:
    """Two buckets: the second cannot be stepped any more, and the first is not stepped either."""
    first, second = np.ones(3), np.ones(3, "f4")
    optimizer = front.AdamW([first, second])
    optimizer.step([np.ones(3), np.ones(3)])
    before = first.copy()
    second.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        optimizer.step([np.ones(3), np.ones(3)])
    np.testing.assert_array_equal(first, before)


def test_a_second_thread_is_told_and_ctrl_c_takes_nothing_away() -> None:
    weight = np.ones(3)
    optimizer = front.AdamW(weight)
    optimizer._inside = -1  # as while another thread is inside
    with pytest.raises(RuntimeError, match="one thread at a time"):
        optimizer.step(np.zeros(3))
    optimizer._inside = threading.get_ident()  # as after Ctrl-C in the first instructions of a step
    optimizer.step(np.zeros(3))
    again = pickle.loads(pickle.dumps(optimizer))
    again.step(np.zeros(3))
    assert again.state_dict()["step"] == {"param": 2}


def test_averages_of_a_parameter_without_a_step_are_its_weights(kernel: str) -> None:
    optimizer = front.Adam({"a": np.ones(2), "b": np.full(2, 5.0)}, ema_decay=0.0)
    optimizer.step({"a": np.ones(2)})
    loaded = front.Adam({"a": np.ones(2), "b": np.full(2, 7.0)}, ema_decay=0.0)
    loaded.load_state_dict(optimizer.state_dict())
    for each in (optimizer, loaded):
        np.testing.assert_array_equal(each.averages()["b"], 5.0)


@pytest.mark.parametrize("dtypes", [("f8", "f8"), ("f8", "f4")])
def test_gradients_may_be_other_parameters(dtypes: tuple[str, str], kernel: str) -> None:
    """The gradients of x . y are y and x themselves: one is written before it would be read."""
    shared = {"x": np.ones(3, dtypes[0]), "y": np.full(3, 2.0, dtypes[0])}
    apart = {name: array.copy() for name, array in shared.items()}
    first, second = front.Adam(shared, lr=0.1), front.Adam(apart, lr=0.1)
    for _ in range(3):
        first.step({"x": shared["y"], "y": shared["x"]})
        second.step({"x": apart["y"].copy(), "y": apart["x"].copy()})
    np.testing.assert_array_equal(shared["y"], apart["y"])
    whole = np.arange(1.0, 9.0)
    one, other = front.Adam(whole[1:], lr=0.1), whole.copy()
    two = front.Adam(other[1:], lr=0.1)
    one.step(whole[:-1])
    two.step(other[:-1].copy())
    np.testing.assert_array_equal(whole, other)


def test_gradients_of_another_dtype_are_converted(kernel: str) -> None:
    for dtype in ("i4", "u2", "f2", "f8"):
        weight, right = np.ones(4, ml_dtypes.bfloat16), np.ones(4, ml_dtypes.bfloat16)
        grad = np.array([1, 2, 3, 4])
        first, second = front.Adam(weight), front.Adam(right)
        first.step(grad.astype(dtype))
        second.step(grad.astype(ml_dtypes.bfloat16))
        np.testing.assert_array_equal(first.moments()[0], second.moments()[0])


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_can_step() -> None:
    """GNU's OpenMP would wait for threads that a forked process does not have."""
    code = """
import os, numpy as np, adamas.numpy
weight = np.ones(1 << 20, "f4")
optimizer = adamas.numpy.AdamW(weight)
optimizer.step(weight)
child = os.fork()
if not child:
    optimizer.step(weight)
    os._exit(int(optimizer.state_dict()["step"]["param"] != 2))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert found.stdout.strip() == "0", found.stderr


def test_it_needs_no_framework() -> None:
    code = "import sys, adamas.numpy; print([m for m in ('torch', 'jax', 'tensorflow', 'keras') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
