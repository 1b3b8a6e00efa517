"""Faults found in the optimizers' core, each as the right value; torch.optim is the oracle where it has one."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from adamas.torch import Adam, AdamW
from tests.conftest import KERNELS, needs_native

THEIRS = {Adam: torch.optim.Adam, AdamW: torch.optim.AdamW}
BOTH = pytest.mark.parametrize("optimizer_class", [Adam, AdamW])
# Ours rounds m and v less often than torch's foreach: float32 weights of size 1 differ by a few ULP after ten steps.
CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}


def tensors(*shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=random, dtype=dtype)) for shape in shapes]


def give_gradients(params: Sequence[Tensor], seed: int = 0) -> None:
    random = torch.Generator().manual_seed(100 + seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=random).to(param.dtype)


def train(params: Sequence[Tensor], optimizer: Any, steps: int = 3, first: int = 0) -> None:
    for step in range(first, first + steps):
        give_gradients(params, step)
        optimizer.step()


def model_of() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def state_of(optimizer: Any) -> list[dict[str, Any]]:
    """The states of all parameters in order, copied."""
    return [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in optimizer.state[param].items()}
        for group in optimizer.param_groups
        for param in group["params"]
    ]


def assert_same_states(got: list[dict[str, Any]], want: list[dict[str, Any]]) -> None:
    assert [sorted(state) for state in got] == [sorted(state) for state in want]
    for state, expected in zip(got, want, strict=True):
        for key, value in expected.items():
            assert torch.equal(torch.as_tensor(state[key]), torch.as_tensor(value)), key


# Names


def test_two_groups_may_hold_parameters_of_equal_names() -> None:
    """A generator and a discriminator in one optimizer both have a "0.weight": each gets its own state back."""

    def build() -> tuple[list[nn.Module], Any]:
        models = [model_of(), model_of()]
        return models, AdamW([{"params": list(model.named_parameters()), "lr": 0.1 / (1 + i)} for i, model in
                              enumerate(models)])  # fmt: skip

    models, optimizer = build()
    train([param for model in models for param in model.parameters()], optimizer)
    others, loaded = build()
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same_states(state_of(loaded), state_of(optimizer))
    assert [group["lr"] for group in loaded.param_groups] == [0.1, 0.05]
    first, second = state_of(loaded)[0], state_of(loaded)[4]
    assert not torch.equal(first["exp_avg"], second["exp_avg"])
    for model, other in zip(models, others, strict=True):
        other.load_state_dict(model.state_dict())
    for each, one in ((models, optimizer), (others, loaded)):
        train([param for model in each for param in model.parameters()], one, first=3)
    for model, other in zip(models, others, strict=True):
        assert all(map(torch.equal, model.parameters(), other.parameters()))


PREFIXES: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "data parallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "both the other way": lambda name: f"_orig_mod.module.{name}",
    "a compiled layer": lambda name: name.replace(".", "._orig_mod.", 1),
}


@pytest.mark.parametrize("wrapper", PREFIXES)
@pytest.mark.parametrize("where", ["saved", "loading", "both"])
def test_prefixes_of_wrappers_do_not_hide_a_name(wrapper: str, where: str) -> None:
    """torch.compile and DistributedDataParallel rename parameters: a checkpoint goes in and out of them, silently."""

    def named(model: nn.Module, wrapped: bool) -> list[tuple[str, Tensor]]:
        return [(PREFIXES[wrapper](name) if wrapped else name, param) for name, param in model.named_parameters()]

    model, other = model_of(), model_of()
    source = AdamW(named(model, where != "loading"))
    train(list(model.parameters()), source)
    target = AdamW(named(other, where != "saved")[::-1])  # by name, not by position
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target.load_state_dict(source.state_dict())
    assert_same_states(state_of(target)[::-1], state_of(source))


def test_a_module_that_is_called_module_keeps_its_name() -> None:
    """Only a wrapper's prefix is set aside: two names that differ in it alone stay two."""
    params = tensors((3,), (3,))
    source = AdamW([("weight", params[0]), ("module.weight", params[1])])
    train(params, source)
    others = tensors((3,), (3,))
    target = AdamW([("module.weight", others[1]), ("weight", others[0])])
    target.load_state_dict(source.state_dict())
    assert_same_states(state_of(target)[::-1], state_of(source))


@pytest.mark.parametrize("edit", ["append", "pop", "replace"])
def test_a_named_group_may_be_edited_by_hand(edit: str) -> None:
    """`group["params"]` is torch's to edit; names that no longer belong to it do not stop a step, a save or a load."""

    def build(optimizer_class: Any) -> tuple[list[nn.Parameter], Any]:
        params = tensors((4,), (3, 2), (5,))
        optimizer = optimizer_class([("a", params[0]), ("b", params[1])], lr=0.1)
        held = optimizer.param_groups[0]["params"]
        if edit == "append":
            held.append(params[2])
        elif edit == "pop":
            held.pop()
        else:
            held[1] = params[2]
        return params, optimizer

    params, optimizer = build(AdamW)
    mirror, theirs = build(torch.optim.AdamW)
    for each, one in ((params, optimizer), (mirror, theirs)):
        train(each, one, 2)
        one.load_state_dict(copy.deepcopy(one.state_dict()))
        train(each, one, 2, first=2)
    for param, other in zip(params, mirror, strict=True):
        torch.testing.assert_close(param, other, **CLOSE)
    fresh, loaded = build(AdamW)
    loaded.load_state_dict(optimizer.state_dict())
    assert_same_states(state_of(loaded), state_of(optimizer))
    assert len(fresh) == 3


# The step count


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("event", ["a step", "one joins", "one leaves", "a load", "a copy", "a group", "a flag"])
def test_a_step_count_that_somebody_holds_is_never_stale(event: str, kernel: str) -> None:
    """torch counts `state[p]["step"]` in place: a tensor that was taken from the state shows every later step."""
    params = tensors((4,), (3, 2), (5,))
    optimizer = AdamW(params, kernel=kernel)
    train(params[:2] if event == "one joins" else params, optimizer, 2)
    if event == "a load":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if event == "a copy":
        params, optimizer = copy.deepcopy((params, optimizer))
    held = [optimizer.state[param]["step"] for param in params if param in optimizer.state]
    counts = [int(step) for step in held]
    assert all(isinstance(step, Tensor) for step in held)
    if event == "a group":
        optimizer.add_param_group({"params": tensors((2,), seed=5)})
    if event == "a flag":
        optimizer.param_groups[0]["foreach"] = False
    stepped = params[1:] if event == "one leaves" else params
    params[0].grad = None
    train(stepped, optimizer, 2)
    rests = event == "one leaves"
    assert [int(step) for step in held] == [count + (0 if rests and i == 0 else 2) for i, count in enumerate(counts)]
    shown = [optimizer.state[param]["step"] for param in params]
    assert [int(step) for step in shown[: len(held)]] == [int(step) for step in held]
    assert all(one is other for one, other in zip(held, shown, strict=False))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("fill", [torch.tensor(5.0), torch.tensor([5.0]), torch.tensor(5, dtype=torch.int64)], ids=str)
def test_a_count_that_somebody_gives_is_counted_in_place(fill: Tensor, kernel: str) -> None:
    params = tensors((4,), (3,))
    optimizer = AdamW(params, kernel=kernel)
    train(params, optimizer, 2)
    mine = fill.clone()
    optimizer.state[params[0]]["step"] = mine
    train(params, optimizer, 3)
    assert int(mine) == 8
    assert int(optimizer.state[params[0]]["step"]) == 8
    assert int(optimizer.state[params[1]]["step"]) == 5


SHARED = '''
"""A3C's optimizer: its state lies in shared memory, and every process steps it. Prints the count and the moments."""
import sys
import torch
import torch.multiprocessing as mp
from adamas.torch import AdamW

STEPS = 20


class SharedAdam(AdamW):
    def __init__(self, params, shape, **options):
        super().__init__(params, **options)
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param] = {
                    "step": torch.zeros(shape).share_memory_(),
                    "exp_avg": torch.zeros_like(param.data).share_memory_(),
                    "exp_avg_sq": torch.zeros_like(param.data).share_memory_(),
                }


def work(lock, models, optimizers):
    torch.set_num_threads(1)
    for _ in range(STEPS):
        for model, optimizer in zip(models, optimizers):
            with lock:
                for param in model.parameters():
                    param.grad = torch.ones_like(param)
                optimizer.step()


if __name__ == "__main__":
    method = sys.argv[1]
    torch.set_num_threads(1)
    models, optimizers = [], []
    for shape in ((), (1,)):  # of the counts
        torch.manual_seed(0)
        models.append(torch.nn.Linear(4, 3))
        models[-1].share_memory()
        optimizers.append(SharedAdam(models[-1].parameters(), shape, lr=1e-2))
    context = mp.get_context(method)
    lock = context.Lock()
    processes = [context.Process(target=work, args=(lock, models, optimizers)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for model, optimizer in zip(models, optimizers):
        torch.manual_seed(0)
        mirror = torch.nn.Linear(4, 3)
        theirs = torch.optim.AdamW(mirror.parameters(), lr=1e-2)
        for _ in range(2 * STEPS):
            for param in mirror.parameters():
                param.grad = torch.ones_like(param)
            theirs.step()
        for param, other in zip(model.parameters(), mirror.parameters()):
            state, want = optimizer.state[param], theirs.state[other]
            assert float(state["step"]) == 2 * STEPS, state["step"]
            torch.testing.assert_close(state["exp_avg"], want["exp_avg"])
            torch.testing.assert_close(state["exp_avg_sq"], want["exp_avg_sq"])
            torch.testing.assert_close(param, other, rtol=1e-4, atol=1e-5)
        optimizer.step()  # in the process that made it, which has not stepped: it goes on from the shared count
        assert float(state["step"]) == 2 * STEPS + (0 if param.grad is None else 1)
    print("shared")
'''


def run_script(path: Path, code: str, *arguments: str, seconds: float = 120) -> str:
    """What a script prints, in a Python of its own."""
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="fork")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_share_the_state_count_together(method: str, tmp_path: Path) -> None:
    """Counts are tensors of the shape () or (1,)."""
    assert run_script(tmp_path / "shared.py", SHARED, method).strip() == "shared"


# Mixed precision


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_unscaled_after_a_fused_step(dtype: torch.dtype) -> None:
    """As after torch's fused step: whoever logs the gradient's norm then sees the true one."""
    after = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        params = tensors((5, 3), (7,), dtype=dtype)
        optimizer = optimizer_class(params, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaler.scale(torch.ones(()))
        give_gradients(params)
        true = [param.grad.clone() for param in params]
        for param in params:
            param.grad.mul_(1024.0)
        scaler.step(optimizer)
        scaler.update()
        after.append([param.grad.clone() for param in params])
        assert all(map(torch.equal, after[-1], true))
    assert all(map(torch.equal, *after))


@needs_native
def test_gradients_stay_as_they_are_where_no_scale_is() -> None:
    params = tensors((5, 3))
    optimizer = AdamW(params, fused=True, max_norm=0.1)
    give_gradients(params)
    before = params[0].grad.clone()
    optimizer.step()
    assert torch.equal(params[0].grad, before)


# Hyperparameters of unusual types


class ListConfig(Sequence[float]):
    """As OmegaConf's: a sequence, but neither a list nor a tuple."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)


BETAS = {
    "list": [0.8, 0.95],
    "ListConfig": ListConfig([0.8, 0.95]),
    "array": np.array([0.8, 0.95]),
    "floats of NumPy": (np.float64(0.8), np.float64(0.95)),
}


@pytest.mark.parametrize("where", ["construction", "group", "assignment", "loading"])
@pytest.mark.parametrize("kind", BETAS)
def test_betas_may_be_any_pair(kind: str, where: str) -> None:
    betas = BETAS[kind]
    results = []
    for optimizer_class, pair in ((AdamW, betas), (torch.optim.AdamW, (0.8, 0.95))):
        params = tensors((4,), (3, 2))
        if where == "construction":
            optimizer = optimizer_class(params, betas=pair)
        elif where == "group":
            optimizer = optimizer_class([{"params": params, "betas": pair}])
        else:
            optimizer = optimizer_class(params)
            if where == "assignment":
                optimizer.param_groups[0]["betas"] = pair
            else:
                saved = copy.deepcopy(optimizer.state_dict())
                saved["param_groups"][0]["betas"] = pair
                optimizer.load_state_dict(saved)
        train(params, optimizer)
        results.append(params)
    torch.testing.assert_close(*results, **CLOSE)


def scheduled(optimizer: Any, name: str) -> Any:
    if name == "OneCycleLR":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
    return lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=3, cycle_momentum=True)


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
@pytest.mark.parametrize("kernel", KERNELS)
@BOTH
def test_tensor_betas_under_schedules_of_momentum(optimizer_class: Any, name: str, kernel: str) -> None:
    """These write (number, tensor): one beta of each kind."""
    results = []
    for each, options in ((optimizer_class, {"kernel": kernel}), (THEIRS[optimizer_class], {})):
        params = tensors((4,), (3, 2))
        betas = (torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.99, dtype=torch.float64))
        # torch's own takes no such mixture on every path: its rule with numbers is the oracle
        optimizer = each(params, lr=0.01, betas=betas if options else (0.9, 0.99), **options)
        scheduler = scheduled(optimizer, name)
        for step in range(8):
            train(params, optimizer, 1, first=step)
            scheduler.step()
        results.append(params)
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("lr", [np.array(0.1), np.float32(0.125), np.int64(1)], ids=repr)
@pytest.mark.parametrize("where", ["construction", "group", "assignment"])
def test_rates_of_numpy_are_numbers(lr: Any, where: str) -> None:
    results = []
    for optimizer_class, rate in ((AdamW, lr), (torch.optim.AdamW, float(lr))):
        params = tensors((4,))
        optimizer = optimizer_class(params, lr=rate) if where == "construction" else optimizer_class(params)
        if where == "group":
            optimizer = optimizer_class([{"params": params, "lr": rate}])
        elif where == "assignment":
            optimizer.param_groups[0]["lr"] = rate
        train(params, optimizer)
        results.append(params)
    torch.testing.assert_close(*results, **CLOSE)


def test_numbers_of_numpy_are_saved_as_pythons() -> None:
    """`torch.load` refuses NumPy's scalars where it reads weights only, which is its default."""
    params = tensors((4,))
    numpy_options = {
        "lr": np.float64(0.1),
        "betas": (np.float64(0.8), np.float64(0.95)),
        "eps": np.float64(1e-6),
        "weight_decay": np.float32(0.25),
    }
    optimizer = AdamW(params, **numpy_options)
    train(params, optimizer, 1)
    optimizer.param_groups[0]["lr"] = np.float64(0.05)  # as a scheduler that computes with NumPy writes it
    train(params, optimizer, 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    (group,) = torch.load(file, weights_only=True)["param_groups"]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.05, (0.8, 0.95), 1e-6, 0.25)
    assert {type(group[key]) for key in ("lr", "eps", "weight_decay")} == {float}


@pytest.mark.parametrize("where", ["construction", "group", "assignment", "loading"])
def test_a_rate_that_is_a_string_is_called_one(where: str) -> None:
    """YAML reads 1e-4 as a string: the message must not look as if a number were refused."""
    params = tensors((4,))
    optimizer = AdamW(params)
    give_gradients(params)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = "1e-4"
    before = params[0].detach().clone()

    def act() -> None:
        if where == "construction":
            AdamW(params, lr="1e-4")  # pyright: ignore[reportArgumentType]
        elif where == "group":
            AdamW([{"params": params, "lr": "1e-4"}])
        elif where == "loading":
            optimizer.load_state_dict(saved)
        else:
            optimizer.param_groups[0]["lr"] = "1e-4"
            optimizer.step()

    with pytest.raises((ValueError, TypeError), match=r"(?s)(?=.*'1e-4')(?=.*\bstr)"):
        act()
    assert torch.equal(params[0], before)


# Parameters that are no common ones


def test_frozen_integers_rest_as_in_torch() -> None:
    """Quantised layers keep integer parameters without gradients, and `model.parameters()` names them all."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight = tensors((4,))[0]
        codes = nn.Parameter(torch.arange(6, dtype=torch.int8), requires_grad=False)
        optimizer = optimizer_class([weight, codes], lr=0.1)
        for step in range(3):
            give_gradients([weight], step)
            optimizer.step()
        assert torch.equal(codes, torch.arange(6, dtype=torch.int8))
        assert codes not in optimizer.state
        other = optimizer_class([nn.Parameter(weight.detach().clone()), codes], lr=0.1)
        other.load_state_dict(optimizer.state_dict())
        results.append(weight)
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("state_dtype", ["float32", "packed16", "packed12", "bfloat16"])
def test_lazy_modules_have_their_shapes_later(state_dtype: str) -> None:
    """An optimizer may be made before the first batch: torch's takes uninitialised parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(96), nn.ReLU(), nn.LazyLinear(2))
    optimizer = AdamW(model.parameters(), state_dtype=state_dtype)
    optimizer.zero_grad()
    for _ in range(2):
        model(torch.ones(3, 80)).square().sum().backward()
        optimizer.step()
    plain = AdamW(tensors((96, 80)), state_dtype=state_dtype)
    train(plain.param_groups[0]["params"], plain, 2)
    (wanted,) = state_of(plain)
    assert sorted(state_of(optimizer)[0]) == sorted(wanted)
    assert all(bool(optimizer.moments(param)[1].any()) for param in model.parameters())


class Holder(nn.Module):
    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.params = nn.ParameterList(params)


# States that do not fit


def damaged(optimizer: Any, index: int, **changes: Any) -> dict[str, Any]:
    saved = copy.deepcopy(optimizer.state_dict())
    for key, value in changes.items():
        if value is None:
            saved["state"][index].pop(key)
        else:
            saved["state"][index][key] = value
    return saved


STEPS = [math.inf, -math.inf, math.nan, "0.1", 1e300, -1, -1.0]


@pytest.mark.parametrize(
    "step", [*STEPS, *(torch.tensor(x, dtype=torch.float64) for x in STEPS if not isinstance(x, str | int))], ids=repr
)
@pytest.mark.parametrize("capturable", [False, True])
def test_a_loaded_count_that_counts_nothing_is_refused(step: Any, capturable: bool) -> None:
    params = tensors((4,), (3,))
    optimizer = AdamW(params, capturable=capturable)
    train(params, optimizer, 2)
    saved = damaged(optimizer, 1, step=step)
    before, weights = state_of(optimizer), [param.detach().clone() for param in params]
    with pytest.raises(ValueError, match=r"(?s)step"):
        optimizer.load_state_dict(saved)
    assert_same_states(state_of(optimizer), before)
    train(params, optimizer, 1, first=2)
    assert not any(map(torch.equal, params, weights))
    assert all(bool(torch.isfinite(param).all()) for param in params)


@pytest.mark.parametrize(
    "step", [7, 7.0, torch.tensor(7), torch.tensor(7.0), torch.tensor([7.0]), np.int64(7)], ids=repr
)
def test_a_loaded_count_may_be_of_any_number_type(step: Any) -> None:
    results = []
    for optimizer_class, value in ((AdamW, step), (torch.optim.AdamW, torch.tensor(7.0))):
        params = tensors((4,), (3,))
        optimizer = optimizer_class(params)
        train(params, optimizer, 2)
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            state["step"] = copy.deepcopy(value)
        optimizer.load_state_dict(saved)
        train(params, optimizer, 2, first=2)
        assert float(optimizer.state[params[0]]["step"]) == 9
        results.append(params)
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("lost", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("how", ["loading", "by hand"])
def test_half_a_state_is_refused(lost: str, how: str, kernel: str) -> None:
    """A second moment that restarts at zero beside an old first one gives steps of any size: torch raises too."""
    params = tensors((4,), (3,))
    optimizer = AdamW(params, kernel=kernel)
    train(params, optimizer, 2)
    weights = [param.detach().clone() for param in params]
    give_gradients(params, 2)
    saved = damaged(optimizer, 1, **{lost: None})

    def act() -> None:
        if how == "loading":
            optimizer.load_state_dict(saved)
        else:
            optimizer.state[params[1]].pop(lost)
            optimizer.step()

    with pytest.raises((ValueError, KeyError), match=lost):
        act()
    assert all(map(torch.equal, params, weights))


@pytest.mark.parametrize("how", ["loading", "by hand"])
def test_half_a_packed_state_is_refused(how: str) -> None:
    params = tensors((64, 128))
    optimizer = AdamW(params, state_dtype="packed16")
    train(params, optimizer, 2)
    parts = [key for key in optimizer.state[params[0]] if key != "step"]
    assert len(parts) > 1
    for lost in parts:
        params = tensors((64, 128))
        optimizer = AdamW(params, state_dtype="packed16")
        train(params, optimizer, 2)
        before = params[0].detach().clone()
        saved = damaged(optimizer, 0, **{lost: None})
        give_gradients(params, 2)

        def act() -> None:
            if how == "loading":
                optimizer.load_state_dict(saved)
            else:
                optimizer.state[params[0]].pop(lost)
                optimizer.step()

        with pytest.raises((ValueError, KeyError), match=r"exp_avg|packed16"):
            act()
        assert torch.equal(params[0], before)


@pytest.mark.parametrize("step", [5, torch.tensor(5), torch.tensor([5], dtype=torch.int32)], ids=repr)
def test_a_count_in_the_group_is_taken(step: Any) -> None:
    """Apex's and TransformerEngine's FusedAdam keep `step` in the group; their moments are torch's."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        params = tensors((4,), (3,))
        optimizer = optimizer_class(params)
        train(params, optimizer, 5)
        saved = copy.deepcopy(optimizer.state_dict())
        if optimizer_class is AdamW:
            for state in saved["state"].values():
                del state["step"]
            saved["param_groups"][0]["step"] = step
            saved["param_groups"][0]["bias_correction"] = True
        fresh = [nn.Parameter(param.detach().clone()) for param in params]
        loaded = optimizer_class(fresh)
        loaded.load_state_dict(saved)
        assert [float(loaded.state[param]["step"]) for param in fresh] == [5, 5]
        train(fresh, loaded, 3, first=5)
        assert [float(loaded.state[param]["step"]) for param in fresh] == [8, 8]
        results.append(fresh)
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchs_full_state_dict_is_encoded_on_its_way_into_packed_state() -> None:
    """`set_optimizer_state_dict` first makes a state by a step at lr = 0, then loads: the moments must be torch's."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    source = Holder(tensors((64, 128), (5,)))
    theirs = torch.optim.AdamW(source.parameters())
    train(list(source.parameters()), theirs)
    saved = get_optimizer_state_dict(source, theirs, options=options)
    target = Holder(tensors((64, 128), (5,)))
    ours = AdamW(target.parameters(), state_dtype="packed16")
    weights = [param.detach().clone() for param in target.parameters()]
    set_optimizer_state_dict(target, ours, saved, options=options)
    assert all(map(torch.equal, target.parameters(), weights))
    direct = AdamW(tensors((64, 128), (5,)), state_dtype="packed16")
    direct.load_state_dict(theirs.state_dict())
    for param, mine, other in zip(
        target.parameters(), direct.param_groups[0]["params"], source.parameters(), strict=True
    ):
        assert float(ours.state[param]["step"]) == 3
        exp_avg, exp_avg_sq = ours.moments(param)
        assert torch.equal(exp_avg, direct.moments(mine)[0])
        assert torch.equal(exp_avg_sq, direct.moments(mine)[1])
        root, true = exp_avg_sq.sqrt(), theirs.state[other]["exp_avg_sq"].sqrt()
        assert ((root - true).norm() / true.norm()).item() < 0.1


LOADING = '''
"""Prints by how much the resident memory peaks over what it was, in bytes a parameter, while a checkpoint loads."""
import sys
import torch
from adamas.torch import AdamW

path, which = sys.argv[1:]
torch.set_num_threads(1)
N, COUNT = 1 << 20, 24
params = [torch.nn.Parameter(torch.zeros(1024, 1024)) for _ in range(COUNT)]


def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024


optimizer = (AdamW if which == "ours" else torch.optim.AdamW)(params)
small = [torch.nn.Parameter(torch.zeros(2))]
warm = type(optimizer)(small)
small[0].grad = torch.zeros(2)
warm.step()
warm.load_state_dict(warm.state_dict())  # what the first load imports
before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")
optimizer.load_state_dict(torch.load(path, weights_only=True))
assert float(optimizer.state[params[-1]]["exp_avg"][0, 0]) == COUNT - 1
print((resident("VmHWM") - before) / (N * COUNT))
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
def test_loading_peaks_no_higher_than_torchs(tmp_path: Path) -> None:
    """Of `load_state_dict(torch.load(...))`: the checkpoint's 8 bytes a parameter, and no second copy."""
    path = tmp_path / "state.pt"
    params = [nn.Parameter(torch.zeros(1)) for _ in range(24)]
    saved = torch.optim.AdamW(params).state_dict()
    saved["state"] = {
        i: {"step": torch.tensor(3.0), **{key: torch.full((1024, 1024), float(i)) for key in ("exp_avg", "exp_avg_sq")}}
        for i in range(24)
    }
    torch.save(saved, path)
    peaks = {which: float(run_script(tmp_path / "load.py", LOADING, str(path), which)) for which in ("torch", "ours")}
    assert 7.5 < peaks["torch"] < 12
    assert peaks["ours"] < peaks["torch"] + 0.5, peaks


# Interruptions


INTERRUPTED = '''
"""SIGINT at random moments of `step()` or `averaged()`: afterwards every parameter is where the same step leaves it."""
import os
import random
import signal
import sys
import threading
import time
import torch
from adamas.torch import AdamW

what, kernel = sys.argv[1:]
torch.set_num_threads(1)
ATTEMPTS, LONGEST = 150, 300
SHAPES = [(33,)] * 12 + [(64, 64)] * 4
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def build():
    generator = torch.Generator().manual_seed(0)
    kinds = [(dtype, shape) for dtype in DTYPES for shape in SHAPES]
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for dtype, shape in kinds]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
    options = {} if kernel == "auto" else {"kernel": kernel}
    return params, AdamW(params, lr=1e-2, ema_decay=0.5, **options)


def values(params):
    return [param.detach().clone() for param in params]


def same(some, others):
    return all(map(torch.equal, some, others))


params, optimizer = build()
trajectory = [values(params)]
averages = [None]
for _ in range(LONGEST):
    optimizer.step()
    trajectory.append(values(params))
    averages.append([optimizer.state[param]["ema"].clone() for param in params])


def as_weights(step):
    return [average.to(param.dtype) for average, param in zip(averages[step], params)]


params, optimizer = build()
start = time.perf_counter()
for _ in range(20):
    optimizer.step()
each = (time.perf_counter() - start) / 20
params, optimizer = build()
optimizer.step()
main = threading.main_thread().ident
go, stop = threading.Event(), False


def interrupt():
    while True:
        go.wait()
        go.clear()
        if stop:
            return
        time.sleep(random.random() * each * 1.5)
        os.kill(os.getpid(), signal.SIGINT)


random.seed(int(sys.argv[1] == "step"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # the thread inherits it: signals go to the main one
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
hit = 0
for attempt in range(ATTEMPTS):
    step = int(optimizer.state[params[0]]["step"])
    if step > LONGEST - 30:
        params, optimizer = build()
        optimizer.step()
        step = 1
    stepping = False
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        go.set()
        if what == "step":
            while True:
                if int(optimizer.state[params[0]]["step"]) < step + 20:
                    optimizer.step()
                else:  # the signal is late: on a busy machine its thread waits for a processor
                    time.sleep(0.001)
        else:
            while True:
                with optimizer.averaged():
                    pass
    except KeyboardInterrupt:
        hit += 1
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    counts = {int(optimizer.state[param]["step"]) for param in params}
    assert len(counts) == 1, f"attempt {attempt}: parameters have taken {counts} steps"
    (count,) = counts
    now = values(params)
    if what == "step":
        wrong = [i for i, (a, b) in enumerate(zip(now, trajectory[count])) if not torch.equal(a, b)]
        assert not wrong, f"attempt {attempt}: parameters {wrong} are not where {count} steps lead"
        ema = [optimizer.state[param]["ema"] for param in params]
        assert same(ema, averages[count]), f"attempt {attempt}: averages are not where {count} steps lead"
    elif not same(now, trajectory[count]):
        # Python itself may interrupt between `__enter__` and the body: then it is never left, and the averages stay.
        assert same(now, as_weights(count)), f"attempt {attempt}: neither the weights nor their averages"
        params, optimizer = build()
        optimizer.step()
        count = 1
    optimizer.step()  # it still works, and goes on from there
    assert same(values(params), trajectory[count + 1]), f"attempt {attempt}: the next step starts elsewhere"
stop = True
go.set()
assert hit == ATTEMPTS, hit
print("whole")
'''


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("kernel", ["auto", "eager"])
@pytest.mark.parametrize("what", ["step", "averaged"])
def test_an_interrupted_step_is_whole_or_did_not_happen(what: str, kernel: str, tmp_path: Path) -> None:
    """Ctrl-C in a notebook: the weights, counts and averages are those of one step, and training goes on from there."""
    assert run_script(tmp_path / "interrupted.py", INTERRUPTED, what, kernel, seconds=300).strip() == "whole"


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_step_of_two_threads_is_lost(kernel: str) -> None:
    """Two times 200 steps from two threads are 400 steps, as in torch; who writes a weight last is nobody's promise."""

    params = tensors((64, 64), (33,), (5, 4))
    give_gradients(params)
    before = [param.detach().clone() for param in params]
    optimizer = AdamW(params, lr=1e-3, weight_decay=0.0, kernel=kernel)
    errors: list[BaseException] = []
    together = threading.Barrier(2)

    def work() -> None:
        try:
            together.wait()
            for _ in range(200):
                optimizer.step()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [int(optimizer.state[param]["step"]) for param in params] == [400] * 3
    for param, start in zip(params, before, strict=True):
        moved = (param.detach() - start).abs()
        # constant gradients: a weight moves by lr in a step, and steps that overlap may write over each other
        assert bool((moved > 0.1).all())
        assert bool((moved < 1.0).all())


# Other worlds


def test_swapped_in_state_is_stepped_as_in_torch() -> None:
    """`torch.optim._stateless` exchanges parameters, state and group values for a while, and puts them back."""
    stateless = pytest.importorskip("torch.optim._stateless", reason="newer torch only")
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        params = tensors((4,), (3, 2))
        optimizer = optimizer_class(params, lr=0.1)
        train(params, optimizer, 2)
        before, kept = state_of(optimizer), [param.detach().clone() for param in params]
        swapped = {str(i): param for i, param in enumerate(tensors((4,), (3, 2), seed=7))}
        state_dict = copy.deepcopy(optimizer.state_dict())
        state_dict["param_groups"][0]["lr"] = 0.5
        with stateless.swap_in_optimizer_params_and_state(optimizer, swapped, state_dict):
            train(list(swapped.values()), optimizer, 2, first=2)
        assert all(map(torch.equal, params, kept))
        assert_same_states(state_of(optimizer), before)
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert [float(state["step"]) for state in state_dict["state"].values()] == [4, 4]  # counted in place
        moments = [state[key] for state in state_dict["state"].values() for key in ("exp_avg", "exp_avg_sq")]
        train(params, optimizer, 2, first=4)
        results.append([*swapped.values(), *moments, *params])
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("begun", [False, True])
def test_real_weights_are_not_written_under_a_fake_mode(begun: bool, kernel: str) -> None:
    """A tool that traces with fake tensors must not train: either nothing happens or the step is refused."""
    from torch._subclasses import FakeTensorMode

    params = tensors((4,), (64, 64))
    optimizer = AdamW(params, kernel=kernel)
    if begun:
        train(params, optimizer, 1)
    give_gradients(params, 1)
    kept = [param.detach().clone() for param in params]
    before = state_of(optimizer) if begun else []
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with contextlib.suppress(RuntimeError, TypeError, NotImplementedError, ValueError), mode:
        optimizer.step()
    assert all(map(torch.equal, params, kept))
    if begun:
        assert_same_states(state_of(optimizer), before)


def warnings_of(make: Callable[[], tuple[list[nn.Parameter], Any]]) -> Iterator[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params, optimizer = make()
        train(params, optimizer)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(params, optimizer)
    return (str(each.message) for each in caught)


@pytest.mark.parametrize("state_dtype", ["packed16", "packed12", "bfloat16"])
def test_a_format_that_no_parameter_takes_is_said_once(state_dtype: str) -> None:
    """All tensors are too small: the memory that was asked to be saved is not, and silence would hide it."""

    def of(*shapes: tuple[int, ...]) -> Callable[[], tuple[list[nn.Parameter], Any]]:
        def make() -> tuple[list[nn.Parameter], Any]:
            params = tensors(*shapes)
            return params, AdamW(params, state_dtype=state_dtype)

        return make

    (message,) = warnings_of(of((16, 16), (7,)))
    assert state_dtype in message
    assert not list(warnings_of(of((64, 128), (7,))))
