"""Every mistake in a user's job is found before anything is trained, and the message names the remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest
from typer.testing import CliRunner

from adamas.cli import app
from adamas.compare.api import conduct
from adamas.compare.study.arms import ARMS
from adamas.compare.study.errors import ChangedError
from adamas.compare.study.margin import Margin
from tests.compare.jobs import look_over
from tests.compare.tiny_job import TINY, Settings

SIZE = "model(torch.ones(2, 4)).square().mean()"  # a figure that follows from the weights
PIECES = {
    "head": "",
    "model": "nn.Linear(4, 1)",
    "batches": "lambda epoch: torch.randn(12, 4).split(4)",
    "loss": "lambda batch: model(batch).square().mean()",
    "evaluate": f'lambda split: {{"loss": {SIZE}}}',
    "epochs": "2",
    "steps_per_epoch": "3",
    "more": "",
}
OWN_LOOP = {
    "fit": "lambda optimizer: one_step(model, optimizer)",
    "evaluate": PIECES["evaluate"],
    "epochs": "2",
}


def write(folder: Path, body: str) -> str:
    """Write a file with a job, and return the text that the user types."""
    head = "import random, torch\nfrom torch import nn\nfrom adamas.compare import Job, OwnLoop; CALLS = []\n"
    path = folder / "my_job.py"
    path.write_text(f"{head}\n{body}")
    return f"{path}:job"


def job_file(folder: Path, **pieces: str) -> str:
    """Write a job that is correct except for the given pieces, and return the text that the user types."""
    made = {**PIECES, **pieces}
    head, model = made.pop("head"), made.pop("model")
    more = made.pop("more")
    arguments = ", ".join(f"{name}={value}" for name, value in made.items())
    return write(
        folder,
        f"def job(seed, device):\n{indent(dedent(head), '    ')}\n    model = {model}\n"
        f"    return Job(model, {arguments}, {more})\n",
    )


def own_loop_file(folder: Path, **pieces: str) -> str:
    """Write a job with its own loop that is correct except for the given pieces."""
    arguments = ", ".join(f"{name}={value}" for name, value in {**OWN_LOOP, **pieces}.items())
    return write(
        folder,
        dedent(f"""
            def one_step(model, optimizer, factor=1.0):
                for _ in range(3):
                    optimizer.zero_grad()
                    (factor * model(torch.randn(3, 4)).square().mean()).backward()
                    optimizer.step()
                raise AssertionError("trained beyond the first steps")

            def job(seed, device):
                model = nn.Linear(4, 1)
                return OwnLoop(model, {arguments})
        """),
    )


def refusal(name: str, device: str = "cpu", metric: str | None = None) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        look_over(name, device, metric)
    return str(caught.value)


def test_a_job_that_is_fine(tmp_path: Path) -> None:
    workload = look_over(job_file(tmp_path), "cpu", None)
    assert (workload.name, workload.metric, workload.stackable, workload.device) == ("my_job", "loss", False, "cpu")
    assert look_over(job_file(tmp_path, more="stackable=True"), "cpu", None).stackable
    assert look_over(own_loop_file(tmp_path), "cpu", None).metric == "loss"


def test_what_has_no_length_may_have_as_many_batches_as_it_likes(tmp_path: Path) -> None:
    """The `__len__` of a data loader over a stream raises an error."""
    head = """
        class Stream:
            def __iter__(self):
                return iter(torch.randn(12, 4).split(4))
            def __len__(self):
                return len(None)
    """
    assert look_over(job_file(tmp_path, head=head, batches="lambda epoch: Stream()"), "cpu", None)


def test_parameter_groups_of_the_jobs_own_are_what_is_pasted(tmp_path: Path) -> None:
    assert not look_over(job_file(tmp_path), "cpu", None).groups
    assert look_over(job_file(tmp_path, more="parameter_groups=[{'params': [model.weight]}]"), "cpu", None).groups
    line = ARMS["adamw"].code(0.01, 0.5, groups=True)
    assert line.endswith(
        "AdamW(parameter_groups, lr=0.01, weight_decay=0.5)  # lr * weight_decay: 0.005, in each group that decays"
    )


def test_the_schedule_and_the_clipping_of_a_job_are_known(tmp_path: Path) -> None:
    def found(**pieces: str) -> tuple[str, float | None]:
        workload = look_over(job_file(tmp_path, **pieces), "cpu", None)
        return workload.schedule, workload.max_norm

    assert found() == ("cosine", None)
    assert found(more="schedule=lambda done: 1 - done, max_norm=1") == ("own", 1)
    constant = "from adamas.compare import constant"
    assert found(head=constant, more="schedule=constant, max_norm=0.5") == ("constant", 0.5)
    assert look_over(own_loop_file(tmp_path), "cpu", None).schedule == "own"


def test_job_is_what_a_function_is_called_unless_said(tmp_path: Path) -> None:
    typed = job_file(tmp_path)
    assert look_over(typed.removesuffix(":job"), "cpu", None).name == "my_job"
    Path(typed.removesuffix(":job")).write_text(Path(typed.removesuffix(":job")).read_text() + "\nlarge = job\n")
    assert look_over(typed.replace(":job", ":large"), "cpu", None).name == "my_job:large"


MISTAKES = [
    ("model", {"model": "torch.ones(3)"}, ("Job.model is a Tensor", "must be a torch.nn.Module")),
    (
        "batches",
        {"batches": "torch.ones(3)"},
        ("Job.batches is a Tensor", "must be a function", "lambda epoch: loader"),
    ),
    ("loss", {"loss": "torch.ones(3)"}, ("Job.loss is a Tensor", "must be a function of a batch")),
    ("evaluate", {"evaluate": "{}"}, ("Job.evaluate is a dict", "must be a function", "figures by name")),
    ("epochs", {"epochs": "2.5"}, ("Job.epochs=2.5 must be a whole number",)),
    ("steps", {"steps_per_epoch": "0"}, ("Job.steps_per_epoch=0 must be >= 1",)),
    ("schedule", {"more": "schedule=0.5"}, ("Job.schedule is a float", "scheduler=lambda optimizer")),
    ("no batch", {"batches": "lambda epoch: []"}, ("batches(0) has no batch",)),
    (
        "batches raise",
        {"batches": "lambda epoch: open('nowhere')"},
        ("batches(0) raised FileNotFoundError", "my_job.py"),
    ),
    (
        "loss raises",
        {"loss": "lambda batch: model(batch[:, :3]).mean()"},
        ("loss(batch) raised RuntimeError", "my_job.py, line"),
    ),
    ("loss shape", {"loss": "lambda batch: model(batch)"}, ("shape (4, 1)", "must be one number: .mean() it")),
    ("loss kind", {"loss": "lambda batch: 3.0"}, ("loss(batch)", "it must return a tensor, or tensors to be added up")),
    ("no losses", {"loss": "lambda batch: {}"}, ("returned nothing", "tensors to be added up")),
    (
        "detached",
        {"loss": "lambda batch: model(batch).mean().detach()"},
        ("does not depend on any weight", "no .item()"),
    ),
    ("nan", {"loss": "lambda batch: model(batch).mean() * float('nan')"}, ("the first loss is nan", "must be finite")),
    (
        "another model",
        {"head": "other = nn.Linear(4, 1)", "loss": "lambda batch: other(batch).square().mean()"},
        ("none of the optimizer's weights a gradient", "must be what loss(batch) uses"),
    ),
    (
        "evaluate raises",
        {"evaluate": "lambda split: 1 / 0"},
        ('evaluate("validation") raised ZeroDivisionError', "line"),
    ),
    ("no mapping", {"evaluate": "lambda split: 0.5"}, ("returned a float", "must return figures by name")),
    ("no number", {"evaluate": "lambda split: {'loss': None}"}, ("loss: NoneType", "must be one number")),
    (
        "metric missing",
        {"more": "metric='mse'"},
        ("returned loss, but not 'mse'", "Job(metric=...) or with --metric"),
    ),
    (
        "higher is better",
        {"evaluate": "lambda split: {'eval_accuracy': 0.5}", "more": "metric='eval_accuracy'"},
        ("'eval_accuracy' is better when higher", "maximize=True", "--metric=-eval_accuracy", "return an error"),
    ),
    (
        "a figure is no number",
        {"evaluate": "lambda split: {'loss': 1.0, 'recall': float('nan')}"},
        ("returned recall=nan for the untrained weights", "leave out what cannot be computed"),
    ),
    ("no schedule", {"more": "schedule=lambda done: None"}, ("schedule(0) returned None", "a number >= 0")),
    (
        "a schedule that ends in NaN",
        {"more": "schedule=lambda done: 1.0 if done < 0.6 else float('nan')"},
        ("schedule(0.833) returned nan", "multiplied by"),
    ),
    (
        "a weight twice",
        {"more": "parameter_groups=[{'params': list(model.parameters())}, {'params': [model.bias]}]"},
        ("first step of none on its weights raised ValueError", "more than one parameter group"),
    ),
    (
        "two weight decays",
        {"more": "parameter_groups=[{'params': p, 'weight_decay': p.ndim / 10} for p in model.parameters()]"},
        (
            "parameter_groups sets the weight decays 0.1, 0.2 in different groups",
            "the comparison tunes one",
            "the same number",
        ),
    ),
    (
        "a weight decay below zero",
        {"more": "parameter_groups=[{'params': model.parameters(), 'weight_decay': -1}]"},
        ("parameter_groups[0] sets weight_decay=-1, which must be a finite number >= 0",),
    ),
    (
        "a scale of zero",
        {"more": "parameter_groups=[{'params': model.parameters(), 'lr_scale': 0}]"},
        ("parameter_groups[0] sets lr_scale=0, which must be a finite number above 0",),
    ),
    (
        "a rate and a scale",
        {"more": "parameter_groups=[{'params': model.parameters(), 'lr': 1, 'lr_scale': 2}]"},
        ("parameter_groups[0] sets lr and lr_scale", "a multiple of the rate that the comparison tunes"),
    ),
    (
        "two optimizers",
        {"more": "parameter_groups={'one': [model.weight], 'other': [model.bias]}"},
        ("names several optimizers, and a Job trains with one", "an OwnLoop"),
    ),
    ("clipping to nothing", {"more": "max_norm=0"}, ("Job.max_norm=0 must be a finite number above 0", "leave it out")),
    (
        "negated twice",
        {"more": "metric='-top1', maximize=True"},
        ("Job.metric='-top1' is negated, and maximize=True negates it again", "give one of the two"),
    ),
    (
        "a loss negated",
        {"more": "maximize=True"},
        ("metric='-loss' is the negative of loss, which is better when lower", "leave out maximize=True"),
    ),
    (
        "nothing decays",
        {"more": "parameter_groups=[{'params': model.parameters(), 'weight_decay': 0}]"},
        ("every group sets its weight_decay to 0, so nothing would decay", "leave it out of one at least"),
    ),
    (
        "fixed rates",
        {"more": "parameter_groups=[{'params': model.parameters(), 'lr': 0.1}]"},
        ("every group sets its lr", "no learning rate would be left to tune"),
    ),
    ("no groups", {"more": "parameter_groups=[]"}, ("parameter_groups is empty", "leave it out to train every weight")),
    ("no params", {"more": "parameter_groups=[{'param': 1}]"}, ("[0] is {'param': 1}", "a dictionary with 'params'")),
    (
        "one group",
        {"more": "parameter_groups={'params': []}"},
        ("is one group", "write [{'params': ...}], a list of groups"),
    ),
    (
        "strange",
        {"more": "parameter_groups=[{'params': ['weight']}]"},
        ("holds a str", "must hold parameters of the model"),
    ),
    (
        "deaf scheduler",
        {"more": "scheduler=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=6)"},
        ("sets the same learning rates whatever the optimizer has", "group in optimizer.param_groups"),
    ),
    (
        "scheduler that needs a figure",
        {"more": "scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"},
        ("scheduler(optimizer), stepped after every step without arguments, raised TypeError", "metrics", "an OwnLoop"),
    ),
    (
        "not stackable",
        {"loss": "lambda batch: model(batch).mean() * model(batch).mean().item()", "more": "stackable=True"},
        ("two copies of the weights together, as stackable=True has it, raised", ".item()", "without stackable=True"),
    ),
    (
        "loss calls backward",
        {
            "head": "def lost(batch):\n    loss = model(batch).square().mean()\n    loss.backward()\n    return loss",
            "loss": "lost",
        },
        ("the backward pass raised RuntimeError", "leave backward() to the comparison"),
    ),
    (
        "another number of batches",
        {"steps_per_epoch": "4"},
        ("steps_per_epoch=4, but batches(0) has 3", "steps_per_epoch=len(loader)"),
    ),
    (
        "the test split raises",
        {"evaluate": "lambda split: {'loss': {'validation': 1.0}[split]}"},
        ('evaluate("test") raised KeyError', "line"),
    ),
    (
        "other names on the test split",
        {"evaluate": "lambda split: {'loss': 1.0} if split == 'validation' else {'mse': 1.0}"},
        ("evaluate('test') returned mse, but not 'loss'", "the same names"),
    ),
    (
        "figures that remember",
        {"head": "CALLS.append(seed)", "evaluate": "lambda split: {'loss': float(len(CALLS))}"},
        ('built twice from seed 0, evaluate("validation") gave loss 1 and 2', "follow from the model alone"),
    ),
    (
        "seed not used up",
        {"head": "torch.manual_seed(random.SystemRandom().randrange(2**40))"},
        ("built twice from seed 0, it started with", "the seed must fix weights, data order"),
    ),
    (
        "seed ignored",
        {"head": "torch.manual_seed(7)"},
        ("built from the seeds 0 and 1, it started alike", "the seed must choose"),
    ),
    (
        "factory raises",
        {"head": "torch.load('weights.pt')"},
        ("the call with (seed=0, device='cpu') raised FileNotFound",),
    ),
    ("factory leaves", {"head": "raise SystemExit(2)"}, ("the call with (seed=0, device='cpu') raised SystemExit",)),
]


@pytest.mark.parametrize(("pieces", "parts"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_wrong_piece_is_named_with_the_rule_and_the_remedy(
    pieces: dict[str, str], parts: tuple[str, ...], tmp_path: Path
) -> None:
    said = refusal(job_file(tmp_path, **pieces))
    for part in (*parts, "my_job.py"):
        assert part in said


OWN_LOOP_MISTAKES = [
    ({"fit": "None"}, ("OwnLoop.fit is a NoneType", "trains the model to the end")),
    ({"fit": "lambda optimizer: None"}, ("fit(optimizer) never called optimizer.step()", "the optimizer it is given")),
    ({"fit": "lambda optimizer: 1 / 0"}, ("fit(optimizer) raised ZeroDivisionError", "line")),
    ({"fit": "lambda optimizer: optimizer.step()"}, ("gradients' absolute values sum to 0", "must be what fit trains")),
    ({"fit": "lambda optimizer: one_step(model, optimizer, float('inf'))"}, ("sum to ", "must be finite")),
    ({"fit": "lambda optimizer: (torch.manual_seed(3), one_step(model, optimizer))"}, None),
    ({"parameter_groups": "[{'params': model.weight, 'weight_decay': 1}]"}, None),
    ({"parameter_groups": "[{'params': model.weight, 'weight_decay': '1'}]"}, ("OwnLoop.parameter_groups[0] sets",)),
]


@pytest.mark.parametrize(("pieces", "parts"), OWN_LOOP_MISTAKES)
def test_an_own_loop_is_taken_to_its_first_steps(
    pieces: dict[str, str], parts: tuple[str, ...] | None, tmp_path: Path
) -> None:
    name = own_loop_file(tmp_path, **pieces)
    if parts is None:  # the weights still follow the seed
        assert look_over(name, "cpu", None).metric == "loss"
        return
    said = refusal(name)
    for part in (*parts, "my_job.py"):
        assert part in said


def test_pretrained_weights_may_be_the_same_for_every_seed(tmp_path: Path) -> None:
    """In this case the order of the data must depend on the seed."""
    load = "model = (torch.nn.init.constant_(model.weight, 0.3), torch.nn.init.zeros_(model.bias), model)[2]"
    name = own_loop_file(tmp_path)
    path = Path(name.removesuffix(":job"))
    path.write_text(path.read_text().replace("    return OwnLoop", f"    {load}\n    return OwnLoop"))
    assert look_over(name, "cpu", None).name == "my_job"
    path.write_text(
        path.read_text().replace("    optimizer.zero_grad()", "    torch.manual_seed(1); model.zero_grad()")
    )
    assert "it started alike" in refusal(name)


def test_files_and_functions_that_are_not_there(tmp_path: Path) -> None:
    assert "there is no file nowhere.py; give its path from the current folder" in refusal("nowhere.py:job")
    typed = write(tmp_path, "def train(): ...")
    assert "has no function 'job'; it must return an adamas.compare.Job" in refusal(typed)
    typed = write(tmp_path, "def job(seed, device): return {'model': 1}")
    assert "returned a dict; it must return an adamas.compare.Job or OwnLoop" in refusal(typed)
    typed = write(tmp_path, "def job(): ...")
    assert "raised TypeError: job() got an unexpected" in refusal(typed) or "positional arguments" in refusal(typed)
    assert "importing no_such_package.jobs raised ModuleNotFoundError" in refusal("no_such_package.jobs:job")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import no_such_package", "raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("import argparse; argparse.ArgumentParser().parse_args(['--epochs', '3'])", "raised SystemExit: 2"),
        ("def job(:", "raised SyntaxError"),
    ],
)
def test_importing_raises(line: str, said: str, tmp_path: Path) -> None:
    found = refusal(write(tmp_path, line))
    assert said in found
    assert "must import without arguments and without training anything" in found
    if "SyntaxError" not in said:
        assert re.search(r"my_job\.py, line 5\)", found)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    for device in ("cuda:99", "gpu"):
        found = refusal(job_file(tmp_path), device)
        assert f"device={device!r} cannot be used" in found
        assert "it must be cpu, cuda or cuda:N" in found
    found = refusal(job_file(tmp_path), "meta")
    assert "device='meta', but the model's weights are on cpu" in found
    assert "must put model and data there" in found


def test_the_metric_may_be_chosen(tmp_path: Path) -> None:
    name = job_file(tmp_path, evaluate=f"lambda split: {{'loss': 1.0, 'mae': {SIZE}, 'accuracy': 0.5}}")
    assert look_over(name, "cpu", "mae").metric == "mae"
    assert "metric='accuracy' is better when higher" in refusal(name, metric="accuracy")
    assert "returned loss, mae, accuracy, but not 'f2'" in refusal(name, metric="f2")


@pytest.mark.parametrize("own_loop", [False, True])
def test_sparse_gradients_are_refused_as_torch_does(tmp_path: Path, own_loop: bool) -> None:
    step = "lambda optimizer: (model(torch.tensor([[1, 2]])).sum().backward(), optimizer.step())"
    pieces = {"model": "nn.EmbeddingBag(5, 2, sparse=True)", "evaluate": "lambda split: {'loss': 1.0}"}
    if own_loop:
        body = f"model = {pieces['model']}; return OwnLoop(model, {step}, {pieces['evaluate']}, epochs=1)"
        name = write(tmp_path, f"def job(seed, device):\n    {body}\n")
    else:
        name = job_file(
            tmp_path, **pieces, batches="lambda epoch: torch.ones(3, 1, 2).long()", loss="lambda ids: model(ids).sum()"
        )
    assert "the gradient of a weight of shape (5, 2) is sparse" in refusal(name)
    assert "sparse=False" in refusal(name)


def test_an_optimizer_that_refuses_the_weights_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    """The optimizer takes matrices only, as Muon does."""
    only_matrices = dedent("""
        class Matrices(torch.optim.SGD):
            def __init__(self, params, **options):
                super().__init__(params, **options)
                for group in self.param_groups:
                    for param in group["params"]:
                        if param.ndim != 2:
                            raise ValueError(f"a weight of shape {tuple(param.shape)}")
    """)
    (tmp_path / "only_matrices.py").write_text(f"import torch\n{only_matrices}")
    job = job_file(tmp_path)
    command = [sys.executable, "-m", "adamas.cli", "compare", job, "--out", str(tmp_path / "out")]
    command += ["--arms", "adam_l2,adamw,only_matrices:Matrices"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert (
        "first step of only_matrices:Matrices on its weights raised ValueError: a weight of shape (1,)" in done.stderr
    )
    assert not (tmp_path / "out").exists()


def test_a_margin_suits_the_metric(tmp_path: Path) -> None:
    name = job_file(tmp_path, evaluate=f"lambda split: {{'loss': -3.0 - {SIZE}}}")
    assert ", and margin=2% is a fraction of it, which must be above 0" in refusal(name)
    assert look_over(name, "cpu", None, Margin.parse("0.1abs")).metric == "loss"


def test_a_head_that_begins_at_zero_is_no_seed_without_effect(tmp_path: Path) -> None:
    """Every first loss is the same, but the other weights or the batches differ."""
    body = "model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)); nn.init.zeros_(model[1].weight)"
    zeros = f"{body}; nn.init.zeros_(model[1].bias)"
    alike = "lambda batch: (model(batch) - 1.0).square().mean()"
    evaluate = f"lambda split: {{'loss': {SIZE}}}"
    name = write(
        tmp_path,
        f"def job(seed, device):\n    {zeros}\n    return Job(model, {PIECES['batches']}, {alike}, {evaluate}, 2, 3)\n",
    )
    assert look_over(name, "cpu", None).metric == "loss"


def test_weights_that_two_runs_would_share_are_refused(tmp_path: Path) -> None:
    rest = f"{PIECES['batches']}, {PIECES['loss']}, {PIECES['evaluate']}, 2, 3)"
    shared = write(tmp_path, f"model = nn.Linear(4, 1)\ndef job(seed, device):\n    return Job(model, {rest}\n")
    assert "two runs were given the same weights" in refusal(shared)
    assert "make the model inside the function" in refusal(shared)
    reset = "    model.reset_parameters()\n"
    fresh = write(tmp_path, f"model = nn.Linear(4, 1)\ndef job(seed, device):\n{reset}    return Job(model, {rest}\n")
    assert look_over(fresh, "cpu", None).metric == "loss"
    frozen = "body = nn.Linear(4, 4).requires_grad_(False)\n"
    model = "    model = nn.Sequential(body, nn.Linear(4, 1))\n"
    fine = write(tmp_path, f"{frozen}def job(seed, device):\n{model}    return Job(model, {rest}\n")
    assert look_over(fine, "cpu", None).metric == "loss"


def test_a_job_may_change_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    leaves = f"import os; os.chdir({str(tmp_path / 'elsewhere')!r})"
    workload = look_over(job_file(tmp_path, head=leaves), "cpu", None)
    assert Path.cwd() == tmp_path
    assert Settings(workload, out=Path("out")).storage_url.endswith(f"{tmp_path}/out/trials.db")  # for workers too


def test_two_jobs_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    names = [job_file(tmp_path / folder) for folder in ("one", "other")]
    found = CliRunner().invoke(app, ["compare", *names, "--out", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert "are both called my_job: their runs would be taken for one another's" in found.stderr


@pytest.mark.parametrize("own_loop", [False, True])
def test_a_constant_metric_is_refused(tmp_path: Path, own_loop: bool) -> None:
    for evaluate in ("lambda split: {'loss': 0.5}", f"lambda split: {{'loss': 0.5, 'size': {SIZE}}}"):
        name = (own_loop_file if own_loop else job_file)(tmp_path, evaluate=evaluate)
        path = Path(name.removesuffix(":job"))
        path.write_text(path.read_text().replace("raise AssertionError", "str"))
        said = refusal(name)
        assert "loss is 0.5 for the weights of seeds 0 and 1, for random weights, and after 5 steps" in said
        assert "evaluate must use the model that is trained" in said


def test_a_figure_at_an_end_of_its_range_is_taken_if_another_moves(tmp_path: Path) -> None:
    """A rate of exact matches is 0 for untrained weights of any seed, and after a few steps."""
    name = job_file(tmp_path, evaluate=f"lambda split: {{'missed': 1.0, 'size': {SIZE}}}", more="metric='missed'")
    assert look_over(name, "cpu", None).metric == "missed"


def test_one_accuracy_of_all_untrained_weights_is_no_constant(tmp_path: Path) -> None:
    """A head that begins at zero classifies all alike, whatever the seed is."""
    head = """
        x, y = torch.eye(10).repeat(3, 1), torch.arange(10).repeat(3)
        def zeroed(model):
            for param in model[1].parameters():
                nn.init.zeros_(param)
            return model
    """
    pieces = {
        "model": "zeroed(nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 10)))",
        "batches": "lambda epoch: torch.randperm(30).split(10)",
        "loss": "lambda rows: nn.functional.cross_entropy(model(x[rows]), y[rows])",
        "evaluate": "lambda split: {'error': 1 - (model(x).argmax(1) == y).float().mean()}",
        "more": "metric='error'",
    }
    assert look_over(job_file(tmp_path, head=head, **pieces), "cpu", None).metric == "error"


@pytest.mark.parametrize("own_loop", [False, True])
def test_randomness_after_the_first_batch_is_found(tmp_path: Path, own_loop: bool) -> None:
    """The first batch follows from the seed, and the later ones come from a generator that nobody seeded."""
    free = "torch.Generator().manual_seed(random.SystemRandom().randrange(2**40))"
    later = f"[torch.randn(3, 4), *torch.randn(6, 4, generator={free}).split(3)]"
    if own_loop:
        name = own_loop_file(tmp_path)
        path = Path(name.removesuffix(":job"))
        path.write_text(
            path.read_text()
            .replace("for _ in range(3)", f"for batch in {later}")
            .replace("torch.randn(3, 4))", "batch)")
        )
    else:
        name = job_file(tmp_path, batches=f"lambda epoch: {later}")
    said = refusal(name)
    assert "built twice from seed 0, it started alike, but step 2 had gradients of the sizes" in said
    assert "seed your own generators in the function" in said


SPLIT = """
    x = torch.arange(240.0).view(60, 4)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed({seed}))[:20]
"""


@pytest.mark.parametrize(
    "model", ["nn.Linear(4, 1)", "nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))"]
)
def test_a_split_that_depends_on_the_seed_is_found(tmp_path: Path, model: str) -> None:
    evaluate = "lambda split: {'loss': (model(x[rows]) - 1).square().mean()}"
    pieces = {"model": model, "evaluate": evaluate}
    assert look_over(job_file(tmp_path, head=SPLIT.format(seed=0), **pieces), "cpu", None)
    said = refusal(job_file(tmp_path, head=SPLIT.format(seed="seed"), **pieces))
    assert 'with the same weights, evaluate("validation") gave loss ' in said
    assert "in the job of seed 1" in said
    assert "generator=torch.Generator().manual_seed(0)" in said


@pytest.mark.parametrize(
    "evaluate",
    [
        "lambda split: {'loss': (average(torch.ones(2, 4)) - 1).square().mean()}",  # the figure follows other weights
        "lambda split: {'loss': (model(torch.ones(2, 4)) + torch.randn(2, 1)).square().mean()}",  # it draws noise
        "lambda split: {'loss': (model(torch.ones(2, 4)) + random.random()).square().mean()}",
    ],
)
def test_an_evaluation_with_an_average_or_with_noise_is_no_split_of_the_seed(tmp_path: Path, evaluate: str) -> None:
    name = job_file(tmp_path, evaluate=evaluate, loss="lambda batch: (model(batch).square().mean())")
    path = Path(name.removesuffix(":job"))
    path.write_text(path.read_text().replace("    return Job", "    average = nn.Linear(4, 1)\n    return Job"))
    assert look_over(name, "cpu", None).metric == "loss"


def test_a_maximized_metric_is_minimized_as_its_negative(tmp_path: Path) -> None:
    evaluate = f"lambda split: {{'loss': {SIZE}, 'top1': {SIZE}}}"
    absolute = Margin.parse("0.005abs")
    for more, typed in (("metric='top1', maximize=True", None), ("metric='-top1'", None), ("", "-top1")):
        name = job_file(tmp_path, evaluate=evaluate, more=more)
        assert look_over(name, "cpu", typed, absolute).metric == "-top1"
        said = refusal(name, metric=typed)
        assert "and margin=2% is a fraction of it, which must be above 0" in said
        assert "as in --margin 0.005abs" in said
    name = job_file(tmp_path, evaluate=evaluate, more="metric='top1', maximize=True")
    assert look_over(name, "cpu", "top1", absolute).metric == "-top1"  # the job knows which way is better
    assert look_over(name, "cpu", "loss").metric == "loss"
    assert "returned loss, top1, but not 'top5'" in refusal(name, metric="-top5")
    likelihood = job_file(tmp_path, evaluate=f"lambda split: {{'elbo': -{SIZE}}}", more="metric='elbo', maximize=True")
    assert look_over(likelihood, "cpu", None).metric == "-elbo"  # its negative is above 0


def test_a_negated_accuracy_is_lower_when_better(tmp_path: Path) -> None:
    name = job_file(tmp_path, evaluate=f"lambda split: {{'neg_accuracy': -{SIZE}}}", more="metric='neg_accuracy'")
    assert look_over(name, "cpu", None, Margin.parse("0.01abs")).metric == "neg_accuracy"


@pytest.mark.parametrize("metric", ["f1_score", "roc_auc_score", "acc@1", "acc1", "accuracy_top1", "mAP", "val/miou"])
def test_what_is_better_when_higher_is_known_by_any_part_of_its_name(tmp_path: Path, metric: str) -> None:
    name = job_file(tmp_path, evaluate=f"lambda split: {{{metric!r}: 0.5}}", more=f"metric={metric!r}")
    assert "is better when higher" in refusal(name)


@pytest.mark.parametrize("metric", ["f1_loss", "error@1", "accuracy_error", "mape", "brier_score", "mse"])
def test_what_is_better_when_lower_is_taken(tmp_path: Path, metric: str) -> None:
    name = job_file(tmp_path, evaluate=f"lambda split: {{{metric!r}: {SIZE}}}", more=f"metric={metric!r}")
    assert look_over(name, "cpu", None).metric == metric


def test_counts_may_be_numpys(tmp_path: Path) -> None:
    name = job_file(tmp_path, head="import numpy as np", epochs="np.int64(2)", steps_per_epoch="np.int32(3)")
    job = look_over(name, "cpu", None).load()(0, "cpu")
    assert (type(job.epochs), type(job.steps_per_epoch)) == (int, int)


def test_what_a_job_prints_stays_off_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look_over(job_file(tmp_path, head="print('hello')"), "cpu", None)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n" * 3)


def test_a_job_by_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "its_package"
    package.mkdir()
    (package / "__init__.py").touch()
    written = Path(job_file(package).removesuffix(":job"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    workload = look_over("its_package.my_job:job", "cpu", None)
    assert workload.name == "its_package.my_job"
    assert workload.factory == "its_package.my_job:job"
    by_path = look_over(f"{written}:job", "cpu", None)
    assert by_path.revision == workload.revision  # what the file holds, either way
    written.write_text(written.read_text() + "# changed\n")
    assert look_over("its_package.my_job:job", "cpu", None).revision != workload.revision


def test_a_changed_file_is_another_study(tmp_path: Path) -> None:
    name = job_file(tmp_path)

    def settings(fresh: bool = False) -> Settings:
        workload = look_over(name, "cpu", None)
        return Settings(workload, budget=TINY, seeds=2, workers=1, out=tmp_path / "out", fresh=fresh)

    class Enough(Exception):
        """Raised to stop a study at its first snapshot."""

    def stop(snapshot: object) -> None:
        raise Enough

    with pytest.raises(Enough):
        conduct(settings(), stop)
    with pytest.raises(Enough):  # the same file: continued
        conduct(settings(), stop)
    job_file(tmp_path, loss="lambda batch: model(batch).abs().mean()")
    with pytest.raises(ChangedError, match=r"workload\.revision: [0-9a-f]{12} -> [0-9a-f]{12}") as caught:
        conduct(settings(), stop)
    assert "--fresh to discard it, or another --out to keep both" in str(caught.value)
    with pytest.raises(Enough):
        conduct(settings(fresh=True), stop)


def test_the_command_line_exits_with_2(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["compare", job_file(tmp_path, epochs="0"), "--out", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert "Job.epochs=0 must be >= 1" in found.stderr
    assert not (tmp_path / "out").exists()
