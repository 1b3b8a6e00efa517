"""`adamas.jax`: the transformations for optax, and the fused steps through XLA's foreign functions."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

import adamas.jax as front  # noqa: E402
import adamas.numpy  # noqa: E402
from adamas.kernels import extension, xla  # noqa: E402
from tests.frameworks import trajectory  # noqa: E402

jax.config.update("jax_platforms", "cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_native = pytest.mark.skipif(extension.missing is not None, reason=str(extension.missing))
KERNELS = ["xla", pytest.param("native", marks=needs_native)]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "xla":
        monkeypatch.setattr(xla, "native", None)
    return request.param


def arguments(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the optimizer, and its arguments, from options in the words of `Hyper`."""
    names = {"lr": "learning_rate", "beta1": "b1", "beta2": "b2"}
    given = {names.get(name, name): value for name, value in values.items()}
    decoupled = values.get("decay", "l2") != "l2"
    return ("adamw" if decoupled else "adam"), {"weight_decay": 0.0, **given}


def run_pure(params: list[np.ndarray], grads: list[list[np.ndarray]], values: dict[str, Any]) -> list[Any]:
    name, given = arguments(values)
    optimizer = getattr(front, name)(**given)

    def one(carry: Any, grad: Any) -> Any:
        updates, state = optimizer.update(grad, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    return scanned(one, params, optimizer.init, grads)


def run_fused(params: list[np.ndarray], grads: list[list[np.ndarray]], values: dict[str, Any]) -> list[Any]:
    name, given = arguments(values)
    optimizer = getattr(front, f"fused_{name}")(**given)
    return scanned(lambda carry, grad: (optimizer.step(*carry, grad), None), params, optimizer.init, grads)


def scanned(one: Any, params: list[np.ndarray], init: Any, grads: list[list[np.ndarray]]) -> list[Any]:
    """Run all steps in one program."""
    start = [jnp.asarray(param) for param in params]
    stacked = [jnp.asarray(np.stack(each)) for each in zip(*grads, strict=True)]
    return jax.jit(lambda carry: jax.lax.scan(one, carry, stacked)[0])((start, init(start)))[0]


OPTAX = {
    "eps-root": {"eps_root": 1e-4},
    "amsgrad-corrected": {"amsgrad": "corrected"},
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", [*trajectory.SHARED, *OPTAX])
def test_one_trajectory_of_the_transformation(case: str, dtype: str) -> None:
    with xla.x64() if dtype == "float64" else nullcontext():
        trajectory.check(run_pure, {**trajectory.SHARED, **OPTAX}[case], dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", [*trajectory.SHARED, "maximize"])
def test_one_trajectory_of_the_fused_step(case: str, dtype: str, kernel: str) -> None:
    if kernel == "xla" and dtype == "float64":
        pytest.skip("the transformation's test runs the same rule in float64")
    with xla.x64() if dtype == "float64" else nullcontext():
        trajectory.check(run_fused, {**trajectory.SHARED, "maximize": {"maximize": True}}[case], dtype)


def test_scalars_of_a_32_bit_program_are_those_of_the_host() -> None:
    """float64 arithmetic inside of a program without 64-bit types: one multiplication away from Python's."""
    from adamas.jax.settings import Settings
    from adamas.scalars import Hyper, StepScalars

    settings = Settings(
        learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1, mask=None, decay="lr", base_lr=None,
        cautious_decay=False, amsgrad="off",
    )  # fmt: skip

    @jax.jit
    def traced(count: Any) -> Any:
        with xla.x64():
            numbers = settings.scalars(count, None, True, random=True)
            words = [jnp.asarray(x, jnp.uint32) for x in numbers.random]
            return jnp.stack([jnp.asarray(x, jnp.float64) for x in numbers[:12]]), words

    for count in (0, 1, 2, 9, 100, 12345, 2**24 + 1):
        numbers, words = traced(jnp.int32(count))
        right = StepScalars.of(Hyper(lr=1e-3, weight_decay=0.1, decay="lr"), count + 1, seed=0)
        np.testing.assert_allclose(np.asarray(numbers), right[:12], rtol=4 * 2.0**-53)
        assert [int(word) for word in words] == list(right.random)


LEAN = [
    {"state_dtype": "bfloat16"},
    {"state_dtype": "packed16"},
    {"state_dtype": "packed12", "master_weight_bits": 24},
    {"master_weight_bits": 32},
    {"state_dtype": "packed16", "stochastic_rounding": True, "ema_decay": 0.9, "max_norm": 0.5},
]


# XLA compiles a codec for seconds: each of its formats has one dtype, and each dtype several formats.
IN_FORMATS = [
    *(pytest.param("native", x, dtype, marks=needs_native) for x in LEAN for dtype in ("float32", "bfloat16")),
    *(("xla", options, ("float32", "bfloat16")[i % 2]) for i, options in enumerate(LEAN)),
]


def id_of(value: Any) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value


@pytest.mark.parametrize(("kernel", "options", "dtype"), IN_FORMATS, ids=id_of, indirect=["kernel"])
def test_formats_have_the_bits_of_the_numpy_front(dtype: str, options: dict[str, Any], kernel: str) -> None:
    draw = np.random.default_rng(0)
    start = jnp.asarray(draw.normal(size=(24, 300)), dtype)
    grads = [jnp.asarray(draw.normal(size=(24, 300)), dtype) for _ in range(4)]
    right = np.array(start)
    theirs = adamas.numpy.AdamW({"w": right}, lr=1e-2, weight_decay=0.1, **options)
    mine = front.fused_adamw(1e-2, weight_decay=0.1, **options)
    params = {"w": start}
    state = mine.init(params)
    for grad in grads:
        theirs.step({"w": np.asarray(grad)})
        params, state = mine.step(params, state, {"w": grad})
    found = np.asarray(params["w"])
    if kernel == "native" and extension.missing is None:
        np.testing.assert_array_equal(found, right)
        for a, b in zip(mine.moments(params, state), theirs.moments(), strict=True):
            np.testing.assert_allclose(np.asarray(a["w"]), b["w"], rtol=2.0**-22)
        if "ema_decay" in options:
            np.testing.assert_array_equal(np.asarray(mine.averages(state)["w"]), theirs.averages()["w"])
    else:  # XLA fuses multiplications and additions: a rounding may fall on the other side
        difference = np.abs(found.astype("f4") - right.astype("f4"))
        assert difference.max() <= (2.0**-6 if dtype == "bfloat16" else 1e-5)
        assert np.mean(difference > 0) < (0.4 if dtype == "float32" else 1e-3)


@needs_native
def test_donated_arrays_are_stepped_in_place() -> None:
    optimizer = front.fused_adamw(1e-3)
    params = {"w": jnp.ones((256, 256))}
    state, grads = optimizer.init(params), {"w": jnp.ones((256, 256))}
    step = jax.jit(optimizer.step, donate_argnums=(0, 1))
    before = params["w"].unsafe_buffer_pointer(), state.states["w"]["exp_avg"].unsafe_buffer_pointer()
    params, state = step(params, state, grads)
    assert (params["w"].unsafe_buffer_pointer(), state.states["w"]["exp_avg"].unsafe_buffer_pointer()) == before


@needs_native
def test_without_donation_the_arguments_stay() -> None:
    optimizer = front.fused_adamw(0.1)
    params, grads = jnp.ones(1000), jnp.ones(1000)
    state = optimizer.init(params)
    optimizer.step(params, state, grads)
    assert (params == 1).all()
    assert not state.states["exp_avg"].any()


def test_a_schedule_does_not_recompile(kernel: str) -> None:
    optimizer = front.fused_adamw(optax.linear_schedule(0.1, 0.0, 10), decay="independent", base_lr=0.1)
    traces: list[int] = []

    def counted(*arguments: Any) -> Any:
        traces.append(1)
        return optimizer.step(*arguments)

    step = jax.jit(counted)
    params = jnp.array([1.0])
    state = optimizer.init(params)
    for t in range(10):
        before = params
        params, state = step(params, state, jnp.array([0.0]))
        np.testing.assert_allclose(params, before * (1 - 1e-4 * (1 - t / 10)), rtol=1e-6)
    last, _ = step(params, state, jnp.array([1.0]))
    assert last == params, "a step at lr = 0 changes nothing"
    assert traces == [1]


def test_a_mask_chooses_what_decays(kernel: str) -> None:
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)

    def mask(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, tree)

    fused = front.fused_adamw(0.1, weight_decay=0.5, mask=mask)
    stepped, _ = fused.step(params, fused.init(params), grads)
    pure = front.adamw(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    updates, _ = pure.update(grads, pure.init(params), params)
    for found in (stepped, optax.apply_updates(params, updates)):
        np.testing.assert_allclose(found["w"], 0.95, rtol=1e-6)
        np.testing.assert_array_equal(found["b"], 1.0)


@pytest.mark.parametrize("amsgrad", ["off", "corrected"])
def test_state_and_updates_are_those_of_optax(amsgrad: str) -> None:
    draw = np.random.default_rng(0)
    params = {"w": jnp.asarray(draw.normal(size=(3, 4)), jnp.float32), "b": jnp.asarray(draw.normal(size=4))}
    theirs = optax.amsgrad(1e-2) if amsgrad == "corrected" else optax.adamw(1e-2, weight_decay=0.1, eps_root=1e-6)
    mine = (
        front.adam(1e-2, amsgrad=amsgrad)
        if amsgrad == "corrected"
        else front.adamw(1e-2, weight_decay=0.1, eps_root=1e-6)
    )
    a, b = mine.init(params), theirs.init(params)
    for _ in range(20):
        grads = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), params)
        first, a = mine.update(grads, a, params)
        second, b = theirs.update(grads, b, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=6e-5, atol=1e-8), first, second)
    assert type(a) is type(b[0])
    # optax computes 1 - b2**t in float32: an error of 2**-24 in .001.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=6e-5), a, b[0])


def test_injected_hyperparameters_in_bfloat16() -> None:
    """optax's updates are NaN here: bfloat16 rounds 0.999 to 1."""
    params = jnp.zeros(4, jnp.bfloat16)
    for given in ({}, {"b2": 0.999}):
        injected = optax.inject_hyperparams(front.adamw)(learning_rate=0.125, **given)
        state = injected.init(params)
        updates, state = jax.jit(injected.update)(jnp.ones(4, jnp.bfloat16), state, params)
        np.testing.assert_allclose(updates.astype("float32"), -0.125, rtol=2.0**-7)
        state.hyperparams["learning_rate"] = jnp.bfloat16(0.25)
        updates, state = jax.jit(injected.update)(jnp.ones(4, jnp.bfloat16), state, params)
        np.testing.assert_allclose(updates.astype("float32"), -0.25, rtol=2.0**-6)


def test_an_injected_rate_is_no_base_rate() -> None:
    """`decay="independent"` divides by the first rate, which an injected or scheduled one does not tell."""
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    with pytest.raises(ValueError, match="give base_lr"):
        optax.inject_hyperparams(front.adamw)(schedule, decay="independent").init(jnp.ones(1))
    injected = optax.inject_hyperparams(front.adamw)(schedule, weight_decay=0.1, decay="independent", base_lr=1.0)
    state = injected.init(jnp.ones(1))
    for t in range(3):
        updates, state = injected.update(jnp.zeros(1), state, jnp.ones(1))
        np.testing.assert_allclose(updates, -0.1 * (1 - t / 10), rtol=1e-5)


def test_updates_have_the_wider_dtype() -> None:
    optimizer = front.adamw(1e-8)
    for grads, dtype in ((jnp.arange(1, 4), "float32"), (jnp.ones(3, jnp.float16), "float32")):
        params = jnp.ones(3)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, -1e-8, rtol=1e-3)


def test_a_state_of_other_options_is_refused() -> None:
    params = {"w": jnp.ones((64, 64))}
    made = front.fused_adamw(0.1, ema_decay=0.9).init(params)
    for optimizer in (front.fused_adamw(0.1), front.fused_adamw(0.1, state_dtype="packed16")):
        with pytest.raises(ValueError, match=r"the state of params\['w'\] has .* and this optimizer needs"):
            optimizer.step(params, made, params)


def test_the_second_moment_of_bfloat16_parameters_follows_the_gradients() -> None:
    params = jnp.zeros(1, jnp.bfloat16)
    optimizer = front.adam(1e-3, mu_dtype=jnp.float32)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for t in range(3000):
        _, state = update(jnp.full(1, 1.0 if t < 1500 else 0.1, jnp.bfloat16), state, params)
    right = 1 - 0.999**1500
    right = right * 0.999**1500 + float(jnp.bfloat16(0.1)) ** 2 * (1 - 0.999**1500)
    np.testing.assert_allclose(state.nu, right, rtol=1e-4)


def test_an_ensemble_is_mapped(kernel: str) -> None:
    """`jax.vmap` over members gives each what it gets alone."""
    optimizer = front.fused_adamw(0.1, weight_decay=0.1, ema_decay=0.9)
    params, grads = jnp.arange(12.0).reshape(3, 4), jnp.array([[1.0], [-2.0], [0.5]]) * jnp.ones(4)
    states = jax.vmap(optimizer.init)(params)
    found, states = jax.vmap(optimizer.step)(params, states, grads)
    for i in range(3):
        alone, state = optimizer.step(params[i], optimizer.init(params[i]), grads[i])
        np.testing.assert_allclose(found[i], alone, rtol=1e-6)
        np.testing.assert_allclose(optimizer.averages(states)[i], optimizer.averages(state), rtol=1e-6)


def test_odd_trees(kernel: str) -> None:
    """Empty trees, arrays without elements, 0-d arrays, None, NumPy's arrays and Python's numbers."""
    fused, pure = front.fused_adamw(0.1), front.adamw(0.1)
    for params in ({}, {"a": jnp.zeros((0, 3))}, jnp.float32(1), {"a": np.ones(2, "f4"), "b": None}, [1.0, 2.0]):
        stepped, _ = fused.step(params, fused.init(params), params)
        updates, _ = pure.update(params, pure.init(params), params)
        jax.tree.map(
            lambda new, old, update: np.testing.assert_allclose(new, old + update, rtol=1e-6), stepped, params, updates
        )


def test_complex_parameters_are_two_real_ones() -> None:
    grads = jnp.array([3.0 + 0.5j, -1.0 - 4.0j], jnp.complex64)
    params = jnp.zeros(2, jnp.complex64)
    optimizer = front.adam(0.1)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.1 - 0.1j, 0.1 + 0.1j], rtol=1e-5)
    np.testing.assert_allclose(state.nu, 1e-3 * (jnp.real(grads) ** 2 + 1j * jnp.imag(grads) ** 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: front.adamw(-1.0), "Invalid learning rate"),
        (lambda: front.adam(1e-3, b2=1.0), r"betas must lie in \[0, 1\)"),
        (lambda: front.adamw(1e-3, nesterov=True), "NAdam"),
        (lambda: front.adamw(1e-3, amsgrad=True), "amsgrad=True must be one of"),
        (lambda: front.adamw(lambda count: 1e-3, decay="independent"), "give base_lr"),
        (lambda: front.fused_adamw(1e-3, decay="l2"), r"use fused_adam\(weight_decay"),
        (lambda: front.fused_adamw(1e-3, state_dtype="int8"), "state_dtype='int8' must be one of"),
        (lambda: front.fused_adamw(1e-3, max_norm=-1.0), "max_norm"),
        (lambda: front.fused_adamw(1e-3, amsgrad="raw", state_dtype="packed16"), "a running maximum climbs"),
        (lambda: front.fused_adamw(1e-3).init(jnp.arange(3)), "int32: parameters must be one of"),
        (lambda: front.adamw(1e-3).update(jnp.ones(1), front.adamw(1e-3).init(jnp.ones(1))), "needs the parameters"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


SHARDED = """
import functools, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import adamas.jax as front

mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
draw = np.random.default_rng(0)

def tree(dtype):
    return {"w": jnp.asarray(draw.normal(size=(64, 512)), dtype), "b": jnp.asarray(draw.normal(size=16), dtype)}

@functools.cache
def copies(spec):
    # Results of a program: arrays that are only placed may share memory with others, and could not be donated.
    places = {"w": NamedSharding(mesh, spec), "b": NamedSharding(mesh, P("y"))}
    return places, jax.jit(lambda tree: jax.tree.map(lambda x: -(-x), tree), out_shardings=places)

def put(tree, spec):
    places, copied = copies(spec)
    return copied(jax.tree.map(jax.device_put, tree, places))

for dtype, options, specs in (
    ("float32", {}, [P("x", None), P(None, "y"), P("x", "y"), P(("x", "y"), None), P()]),
    ("float32", {"state_dtype": "packed16"}, [P("x", None), P(("x", "y"), None)]),
    ("bfloat16", {"state_dtype": "packed12", "master_weight_bits": 24}, [P("x", None)]),
    ("bfloat16", {}, [P("x", None)]),
):
    optimizer = front.fused_adamw(0.01, weight_decay=0.1, max_norm=1.0, **options)
    start, grads = tree(dtype), [tree(dtype) for _ in range(3)]
    params, state = start, optimizer.init(start)
    for grad in grads:
        params, state = optimizer.step(params, state, grad)
    for spec in specs:
        shards = put(start, spec)
        mine = optimizer.init(shards)
        step = jax.jit(optimizer.step, donate_argnums=(0, 1)).lower(shards, mine, put(grads[0], spec)).compile()
        text = step.as_text()
        assert not re.search("(all-gather|all-to-all|collective-permute)", text), (dtype, options, spec)
        before = [x.data.unsafe_buffer_pointer() for x in shards["w"].addressable_shards]
        for grad in grads:
            shards, mine = step(shards, mine, put(grad, spec))
        assert [x.data.unsafe_buffer_pointer() for x in shards["w"].addressable_shards] == before, (options, spec)
        assert shards["w"].sharding.is_equivalent_to(NamedSharding(mesh, spec), 2)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), (params, state),
                     (shards, mine))

# Formats whose blocks run along a sharded dimension are gathered, and give the same numbers.
optimizer = front.fused_adamw(0.01, state_dtype="packed16")
start, grad = tree("float32"), tree("float32")
right, _ = optimizer.step(start, optimizer.init(start), grad)
shards = put(start, P("x", "y"))
found, _ = jax.jit(optimizer.step)(shards, optimizer.init(shards), put(grad, P("x", "y")))
np.testing.assert_array_equal(np.asarray(found["w"]), np.asarray(right["w"]))
print("sharded as whole")
"""


@needs_native
def test_shards_stay_where_they_are(tmp_path: Any) -> None:
    """On 8 devices of the host: no gather, no copy of a donated buffer, and the bits of the whole arrays."""
    import os

    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "sharded as whole", found.stderr[-3000:]


@needs_native
def test_an_error_of_the_kernel_reaches_python() -> None:
    """A call that does not fit is refused by the kernel, as JAX's error, and nothing is written."""
    kind = xla.Kind(xla.Storage(), False, False, False, frozenset())
    wrong = [jnp.zeros((12, 2), jnp.uint32), jnp.zeros(2, jnp.uint32), jnp.ones(3), *[jnp.ones(4)] * 3]
    with pytest.raises(Exception, match="grad 0 has another dtype or shape than its parameter"):
        jax.block_until_ready(jax.jit(lambda *a: xla._native(kind, list(a), jnp.zeros((1, 2), jnp.uint32)))(*wrong))


def test_it_needs_no_other_framework() -> None:
    code = "import sys, adamas.jax; print([m for m in ('torch', 'tensorflow', 'keras') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
