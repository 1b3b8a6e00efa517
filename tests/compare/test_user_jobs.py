"""Jobs of many kinds: norms, dropout, several losses, schedulers, frozen weights, own loops; alone and stacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from typer.testing import CliRunner

from adamas.cli import app
from adamas.compare import Job, OwnLoop
from adamas.compare.job.check import inspect_job
from adamas.compare.job.evaluate import groups_of
from adamas.compare.job.load import from_function
from adamas.compare.runner import history, training
from adamas.compare.runner.copies import clip_gradients
from adamas.compare.runner.tasks import Task
from adamas.compare.study import arms
from adamas.compare.study.run import Outcome, Run, Stage
from adamas.torch import param_groups
from tests.compare.conftest import ROOT
from tests.compare.jobs import look_over

ROWS, BATCH, EPOCHS = 60, 12, 4
STEPS = EPOCHS * ROWS // BATCH
FOREIGN = ("torch.optim:Adam", "torch.optim:RMSprop", "torch.optim:Adagrad", "torch.optim:SGD(momentum=0.9)")
ARMS = arms.choose(",".join(("none", "adam_l2", "adamw", "adamw_independent", *FOREIGN)))
RUNS = [
    ("none", 3e-3, 0.0),
    ("adam_l2", 1e-2, 1e-2),
    ("adamw", 1e-2, 0.3),
    ("adamw", 1e-3, 1.0),
    ("adamw_independent", 1e-2, 0.3),
    *((name, 1e-2, 1e-2) for name in FOREIGN),
]


def some_runs(*chosen: tuple[str, float, float], stage: Stage = "search") -> tuple[Run, ...]:
    return tuple(Run(stage, *run, seed=3) for run in chosen)


def trained(made: Job | OwnLoop, *chosen: tuple[str, float, float], stage: Stage = "search") -> list[Outcome]:
    """Train runs on this job object, together if there are several."""
    task = Task(some_runs(*(chosen or RUNS[2:3]), stage=stage), "loss")
    if isinstance(made, OwnLoop):
        return [training._train_own_loop(made, ARMS, task)]
    return training.train({task.seed: made}, ARMS, task)


def job(seed: int, device: str = "cpu") -> Job:
    """Return a job in float64 with batch norm, dropout before and after it, and a frozen layer."""
    torch.manual_seed(seed)
    data = torch.Generator().manual_seed(0)
    inputs = torch.randn(2 * ROWS, 6, generator=data, dtype=torch.float64)
    targets = (inputs[:, :3].sum(1) > 0).long()
    frozen = nn.Linear(6, 6)
    model = nn.Sequential(
        frozen.requires_grad_(False),
        nn.Dropout(0.1),
        nn.Linear(6, 16, bias=False),  # before a batch norm a bias has no gradient, and Adam would divide its noise
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, 16),
        nn.LayerNorm(16),
        nn.Linear(16, 2),
    ).double()

    def loss(rows: Tensor) -> Tensor:
        return functional.cross_entropy(model(inputs[rows]), targets[rows])

    def evaluate(split: str) -> dict[str, float]:
        part = slice(ROWS, 2 * ROWS) if split == "validation" else slice(0, ROWS)
        return {"loss": functional.cross_entropy(model(inputs[part]), targets[part]).item()}

    return Job(
        model, lambda epoch: torch.randperm(ROWS).split(BATCH), loss, evaluate, EPOCHS, ROWS // BATCH, stackable=True
    )


def same(one: Outcome, other: Outcome) -> None:
    """Check that two outcomes are equal to rounding, over the whole run."""
    assert one.ok
    assert other.ok
    assert one.steps == other.steps
    for name in ("total_decay", "fit", "training_loss"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9, abs=0), name
    for name in ("gradient_scale", "validation", "test", "untrained"):
        assert getattr(one, name) == (
            None if getattr(other, name) is None else pytest.approx(getattr(other, name), rel=1e-9)
        ), name
    assert [moment.step for moment in one.curve] == [moment.step for moment in other.curve]
    for first, second in zip(one.curve, other.curve, strict=True):
        assert first == pytest.approx(second, rel=1e-9)


@pytest.mark.parametrize("stage", ["pilot", "search", "final"])
def test_together_equals_one_by_one(stage: Stage) -> None:
    """With dropout masks, running statistics and all optimizers, in float64, every figure agrees to 1e-9."""
    together = training.train_task(job, "cpu", ARMS, Task(some_runs(*RUNS, stage=stage), "loss"))
    alone = [training.train_task(job, "cpu", ARMS, Task((run,), "loss"))[0] for run in some_runs(*RUNS, stage=stage)]
    assert len({round(outcome.validation["loss"], 6) for outcome in alone}) == len(RUNS) - 2  # twins: ours and torch's
    for one, other in zip(together, alone, strict=True):
        same(one, other)


def test_one_that_diverges_leaves_the_others_as_they_were() -> None:
    wild = ("torch.optim:SGD(momentum=0.9)", 1e300, 0.0)
    together = trained(job(3), RUNS[1], wild, RUNS[2])
    assert [outcome.ok for outcome in together] == [True, False, True]
    for outcome, run in ((together[0], RUNS[1]), (together[2], RUNS[2])):
        same(outcome, trained(job(3), run)[0])


def test_every_replica_has_its_own_running_statistics() -> None:
    """The inputs of a batch norm depend on the layers before it, and so on the optimizer."""
    made = job(3)
    seen: list[Tensor] = []

    def evaluate(split: str) -> dict[str, float]:
        seen.append(made.model[3].running_mean.clone())
        return made.evaluate(split)  # type: ignore[arg-type]

    trained(replace(made, evaluate=evaluate), *RUNS[:3])
    alone = []
    for run in RUNS[:3]:
        single = job(3)
        trained(single, run)
        alone.append(single.model[3].running_mean)
        assert single.model[3].num_batches_tracked == STEPS
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    for together, single in zip(seen, alone, strict=True):
        torch.testing.assert_close(together, single, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("together", [False, True])
def test_several_losses_are_added_up(together: bool) -> None:
    chosen = RUNS[2:4] if together else RUNS[2:3]
    expected = trained(replace(made := job(3), loss=lambda batch: made.loss(batch) * 3), *chosen)
    for split in (
        lambda whole: [whole, 2 * whole],
        lambda whole: {"one": whole.reshape(1), "two": (2 * whole).reshape(1)},
    ):
        made = job(3)
        found = trained(replace(made, loss=lambda batch, made=made, split=split: split(made.loss(batch))), *chosen)
        for one, other in zip(found, expected, strict=True):
            same(one, other)


@pytest.mark.parametrize("together", [False, True])
def test_a_scheduler_of_torchs_steps_with_every_batch(together: bool) -> None:
    """The total decay is that of the learning rates that the scheduler set."""

    def scheduler(optimizer: Optimizer) -> OneCycleLR:
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=rates, total_steps=STEPS, cycle_momentum=False)

    dummy = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    stepped, factors = scheduler(dummy), []
    for _ in range(STEPS):
        factors.append(dummy.param_groups[0]["lr"])
        dummy.step()
        stepped.step()
    assert max(factors) == pytest.approx(1.0)
    assert factors[0] == pytest.approx(1 / 25)
    outcomes = trained(replace(job(3), scheduler=scheduler), *(RUNS[2:4] if together else RUNS[2:3]))
    for outcome, (_, lr, weight_decay) in zip(outcomes, RUNS[2:4], strict=False):
        assert outcome.total_decay == pytest.approx(lr * weight_decay * sum(factors), rel=1e-12)
    if together:
        same(outcomes[1], trained(replace(job(3), scheduler=scheduler), RUNS[3])[0])


def groups_in(style: str, model: nn.Module) -> object:
    """Return the same two groups in one of the forms that users give them; only matrices decay."""
    matrices, others = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    if style == "generators":
        return ({"params": iter(params), **more} for params, more in ((matrices, {}), (others, {"weight_decay": 0})))
    if style == "param_groups":
        return param_groups(model, weight_decay=0.7)  # the study replaces this number
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]


@pytest.mark.parametrize("style", ["generators", "param_groups"])
def test_groups_may_be_given_in_any_way_torch_takes(style: str) -> None:
    expected = trained(replace(made := job(3), parameter_groups=groups_in("lists", made.model)), *RUNS[1:4])
    found = trained(replace(made := job(3), parameter_groups=groups_in(style, made.model)), *RUNS[1:4])
    everything = trained(job(3), *RUNS[1:4])
    for one, other, undivided in zip(found, expected, everything, strict=True):
        same(one, other)
        assert one.validation != undivided.validation  # biases decay there


def test_a_group_may_train_at_a_multiple_of_the_learning_rate() -> None:
    def with_rate(**rate: float) -> Job:
        made = job(3)
        groups = [{"params": made.model[2].parameters(), **rate}, {"params": made.model[8].parameters()}]
        return replace(made, parameter_groups=groups)

    for chosen in (RUNS[2:3], RUNS[1:3]):  # all at the learning rate 1e-2
        found, expected = trained(with_rate(lr_scale=0.5), *chosen), trained(with_rate(lr=5e-3), *chosen)
        for one, other in zip(found, expected, strict=True):
            same(one, other)


@pytest.mark.parametrize("max_norm", [0.05, 1e3])
def test_gradients_are_clipped_as_torch_clips_them(max_norm: float) -> None:
    """Alone to the bit, and together each copy by the norm of its own gradients."""
    runs = [("torch.optim:SGD(momentum=0.9)", lr, 1e-2) for lr in (1e-2, 0.3)]
    together = trained(replace(job(3), max_norm=max_norm), *runs)
    unclipped = trained(job(3), *runs)
    for run, one, free in zip(runs, together, unclipped, strict=True):
        (alone,) = trained(replace(job(3), max_norm=max_norm), run)
        same(one, alone)
        made = job(3)
        optimizer = torch.optim.SGD(made.model.parameters(), run[1], momentum=0.9, weight_decay=run[2])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: made.schedule(step / STEPS))
        for batch in (batch for epoch in range(EPOCHS) for batch in made.batches(epoch)):
            optimizer.zero_grad()
            made.loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(made.model.parameters(), max_norm)
            optimizer.step()
            scheduler.step()
        made.model.eval()
        assert alone.validation == pytest.approx(made.evaluate("validation"), rel=1e-12)
        assert (one.validation == free.validation) == (max_norm > 1)


def test_clipping_does_not_scale_memory_that_gradients_share_twice() -> None:
    """The gradients of two weights that are added up may be one tensor."""
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = torch.optim.SGD(weights, 1.0)
    weights[0].grad = weights[1].grad = torch.full((3,), 4.0)
    expected = [4.0 / (96**0.5 + 1e-6)] * 3
    clip_gradients(optimizer, 1.0)
    for weight in weights:
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("names", [False, True])
def test_plain_parameters_are_one_group(names: bool) -> None:
    made = job(3)
    given = made.model.named_parameters() if names else made.model.parameters()
    made = replace(made, parameter_groups=given)
    assert [len(group["params"]) for group in groups_of(made)] == [len(list(made.model.parameters()))]
    same(trained(made)[0], trained(job(3))[0])


def test_what_is_frozen_or_in_no_group_stays() -> None:
    for chosen in (RUNS[2:3], RUNS[2:4]):
        made = job(3)
        model = made.model
        before = {name: param.clone() for name, param in model.named_parameters()}
        made = replace(made, parameter_groups=[{"params": model[2].parameters()}, {"params": model[0].weight}])
        kept: list[dict[str, Tensor]] = []

        def evaluate(split: str, made: Job = made, kept: list[dict[str, Tensor]] = kept) -> dict[str, float]:
            kept.append({name: param.clone() for name, param in made.model.named_parameters()})
            return made.evaluate(split)  # type: ignore[arg-type]

        trained(replace(made, evaluate=evaluate), *chosen)
        assert len(kept) == len(chosen)
        for after in kept:
            moved = {name for name in before if not torch.equal(after[name], before[name])}
            assert moved == {"2.weight"}


def own_loop(seed: int, device: str = "cpu", fit: object = None) -> OwnLoop:
    """Return a job that trains like `job`, in its own loop, with a linear schedule from 1 to 1/2."""
    made = job(seed)

    def train(optimizer: Optimizer) -> None:
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=STEPS)
        for epoch in range(made.epochs):
            for batch in made.batches(epoch):
                optimizer.zero_grad()
                made.loss(batch).backward()
                optimizer.step()
                scheduler.step()

    return OwnLoop(made.model, fit or train, made.evaluate, EPOCHS)  # type: ignore[arg-type]


def test_an_own_loop_is_watched() -> None:
    factors = [1 - 0.5 * step / STEPS for step in range(STEPS)]
    for arm, lr, weight_decay in RUNS:
        (outcome,) = trained(own_loop(3), (arm, lr, weight_decay), stage="final")
        assert outcome.ok
        assert (outcome.steps, outcome.epochs, outcome.steps_per_epoch) == (STEPS, EPOCHS, ROWS / BATCH)
        assert outcome.total_decay == pytest.approx(lr * weight_decay * sum(factors), rel=1e-12)
        assert outcome.test is not None
        assert outcome.gradient_scale is None
    driven = trained(replace(job(3), schedule=lambda progress: 1 - 0.5 * progress))[0]
    assert trained(own_loop(3))[0].validation == pytest.approx(driven.validation, rel=1e-12)


def with_closures(made: Job, optimizer: Optimizer) -> None:
    """Train as Lightning does: the step calls a function that clears and computes the gradients."""
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=STEPS)
    for epoch in range(made.epochs):
        for batch in made.batches(epoch):

            def closure(batch: Tensor = batch) -> Tensor:
                optimizer.zero_grad()
                loss = made.loss(batch)
                assert isinstance(loss, Tensor)
                loss.backward()
                return loss

            if epoch % 2:
                optimizer.step(closure)
            else:
                optimizer.step(closure=closure)
            scheduler.step()


@pytest.mark.parametrize("stage", ["pilot", "final"])
def test_a_step_with_a_closure_is_a_step(stage: Stage) -> None:
    for run in RUNS:
        made = job(3)
        loop = OwnLoop(made.model, lambda optimizer, made=made: with_closures(made, optimizer), made.evaluate, EPOCHS)
        (found,), (expected,) = trained(loop, run, stage=stage), trained(own_loop(3), run, stage=stage)
        assert found.validation == expected.validation
        assert (found.steps, found.total_decay) == (expected.steps, expected.total_decay)
        assert found.gradient_scale == expected.gradient_scale


def adversaries(seed: int, device: str = "cpu", every: int = 1, forget: bool = False) -> OwnLoop:
    """Return a job with two optimizers; the second one steps in every step or in one of `every`, or never."""
    torch.manual_seed(seed)
    nets = nn.ModuleDict({"generator": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)})
    generator, discriminator = nets["generator"], nets["discriminator"]

    def fit(optimizers: dict[str, Optimizer]) -> None:
        assert list(optimizers) == ["generator", "discriminator"]
        for step in range(STEPS):
            fake, real = generator(torch.randn(8, 2)), torch.randn(8, 2) + 1
            if step % every == every - 1 and not forget:
                optimizers["discriminator"].zero_grad()
                (discriminator(fake.detach()).mean() - discriminator(real).mean()).backward()
                optimizers["discriminator"].step()
            optimizers["generator"].zero_grad()
            (-discriminator(fake).mean()).backward()
            optimizers["generator"].step()

    groups = {
        "generator": generator.parameters(),
        "discriminator": {"params": discriminator.parameters(), "lr_scale": 4, "betas": (0.5, 0.99)},
    }

    def evaluate(split: str) -> dict[str, float]:
        return {"loss": (generator(torch.zeros(1, 2)) - 1).square().mean().item()}

    return OwnLoop(nets, fit, evaluate, EPOCHS, parameter_groups=groups)


def test_two_optimizers_are_given_by_name() -> None:
    made = adversaries(3)
    seen: dict[str, Optimizer] = {}
    loop = replace(made, fit=lambda optimizers: (seen.update(optimizers), made.fit(optimizers)))
    (outcome,) = trained(loop, RUNS[2])
    assert outcome.steps == STEPS
    assert [type(optimizer).__name__ for optimizer in seen.values()] == ["AdamW", "AdamW"]
    first, second = (optimizer.param_groups[0] for optimizer in seen.values())
    assert (first["lr"], second["lr"]) == (1e-2, 4e-2)
    assert first["weight_decay"] == second["weight_decay"] == 0.3
    assert second["betas"] == (0.5, 0.99)
    expected = adversaries(3)
    expected.fit(
        {
            "generator": torch.optim.AdamW(expected.model["generator"].parameters(), 1e-2, weight_decay=0.3),
            "discriminator": torch.optim.AdamW(
                expected.model["discriminator"].parameters(), 4e-2, betas=(0.5, 0.99), weight_decay=0.3
            ),
        }
    )
    assert outcome.validation == pytest.approx(expected.evaluate("validation"), rel=1e-5)


def test_the_gradients_of_all_optimizers_are_measured() -> None:
    """Each weight by the steps that its own optimizer took: here the second took a tenth of the first's."""
    made = adversaries(3, every=STEPS // 2)
    seen: dict[str, Optimizer] = {}
    loop = replace(made, fit=lambda optimizers: (seen.update(optimizers), made.fit(optimizers)))
    (outcome,) = trained(loop, RUNS[0], stage="pilot")
    assert outcome.gradient_scale is not None
    probe = history._root_second_moments(seen.values(), STEPS)
    assert probe.numel() == 6 + 2  # the bias of the discriminator has no gradient: its two means cancel
    weight = made.model["discriminator"].weight
    state = seen["discriminator"].state[weight]
    assert torch.equal(probe[-2:], (state["exp_avg_sq"] / (1 - 0.99**2)).sqrt().flatten())


def test_an_optimizer_that_never_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"never called optimizer\.step\(\) of 'discriminator'"):
        trained(adversaries(3, forget=True))
    with pytest.raises(ValueError, match="took no step of the optimizer 'discriminator'"):
        inspect_job(from_function(partial_job(forget=True)), None, {})
    assert inspect_job(from_function(partial_job(every=10)), None, ARMS).metric == "loss"


def partial_job(**options: object) -> Callable[[int, str], OwnLoop]:
    return lambda seed, device: adversaries(seed, device, **options)  # type: ignore[arg-type]


def test_an_own_loops_pilot_measures_what_a_jobs_does() -> None:
    (found,) = trained(own_loop(3), RUNS[0], stage="pilot")
    (expected,) = trained(replace(job(3), schedule=lambda progress: 1 - 0.5 * progress), RUNS[0], stage="pilot")
    assert found.gradient_scale == pytest.approx(expected.gradient_scale)  # as many probes as the run has steps
    assert found.untrained == expected.untrained
    (foreign,) = trained(own_loop(3), RUNS[-1], stage="pilot")
    assert foreign.gradient_scale is None  # SGD has no second moments


def test_a_long_loop_is_probed_evenly() -> None:
    """Its length is not known in advance: half of the probes are dropped whenever there are too many."""
    made = job(3)

    def fit(optimizer: Optimizer) -> None:
        for _ in range(20):
            for batch in made.batches(0):
                optimizer.zero_grad()
                made.loss(batch).backward()
                optimizer.step()

    long = OwnLoop(made.model, fit, made.evaluate, epochs=20)
    outcome = trained(long, RUNS[0], stage="pilot")[0]
    assert outcome.steps == 20 * ROWS // BATCH
    assert outcome.gradient_scale is not None


def test_an_own_loop_that_ignores_its_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"never called optimizer\.step\(\): it must train with the optimizer"):
        trained(own_loop(3, fit=lambda optimizer: None))


def test_the_starting_file_is_a_job(tmp_path: Path) -> None:
    path = tmp_path / "my_job.py"
    first = CliRunner().invoke(app, ["compare", "--init", str(path)])
    assert first.exit_code == 0
    assert f"adamas compare {path}:job --budget quick" in first.stdout.replace("\n", "")
    workload = look_over(f"{path}:job", "cpu", None)
    assert (workload.metric, workload.stackable) == ("loss", True)
    outcome = training.train_task(workload.load(), "cpu", ARMS, Task(some_runs(("adamw", 3e-3, 0.1)), "loss"))[0]
    assert outcome.validation["accuracy"] > 0.9
    text = path.read_text()
    for piece in Job.__dataclass_fields__:
        assert piece in text, f"{piece} is not explained"


def test_the_starting_file_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("precious")
    again = CliRunner().invoke(app, ["compare", "--init", str(path)])
    assert again.exit_code == 2
    assert "exists already; give another name, or move it away" in again.stderr
    assert path.read_text() == "precious"
    nowhere = CliRunner().invoke(app, ["compare", "--init", str(tmp_path / "no" / "folder.py")])
    assert nowhere.exit_code == 2
    assert "cannot be written" in nowhere.stderr


def test_the_starting_file_is_in_the_package() -> None:
    """The wheel has every file under src/adamas that Git does not ignore."""
    import subprocess

    template = "src/adamas/compare/job/template.py.txt"
    assert (ROOT / template).is_file()
    ignored = subprocess.run(["git", "check-ignore", "-q", template], cwd=ROOT, check=False).returncode
    assert ignored != 0
