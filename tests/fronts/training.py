"""One small training in Accelerate, Fabric, Lightning, transformers and TRL, which clip and accumulate themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

STEPS = 6
Prepared = Callable[[nn.Module, Any], Any]  # called with what the trainer made of the model and the optimizer


@dataclass
class Digest:
    """What a training leaves."""

    model: Model
    optimizer: Any  # the one that the job made
    losses: list[float]  # of each batch
    norms: list[float] = field(default_factory=list)  # of the gradients, as the trainer logs them


class Model(nn.Module):
    """A network whose output is its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
        self.losses: list[float] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        loss = self.net(rows).float().square().mean()
        self.losses.append(loss.item())
        return loss


def fresh() -> Model:
    torch.manual_seed(1)
    return Model()


@lru_cache
def rows() -> Dataset[Any]:
    return TensorDataset(torch.randn(STEPS * 8, 5, generator=torch.Generator().manual_seed(0)))


def batches() -> DataLoader[Any]:
    return DataLoader(rows(), batch_size=8)


def by_accelerate(
    cls: Any, options: dict[str, Any], *, accumulate: int = 1, clip: float | None = None, bf16: bool = False,
    folder: Path | None = None, resume: bool = False, prepared: Prepared | None = None,
) -> Digest:  # fmt: skip
    """Train; with `resume`, a second program continues from the checkpoint of half of the steps."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    def begun() -> tuple[Any, ...]:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        precision = "bf16" if bf16 else "no"
        accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulate)
        module = fresh()
        inner = cls(module.parameters(), **options)
        return accelerator, module, inner, *accelerator.prepare(module, inner, batches())

    accelerator, module, inner, model, optimizer, loader = begun()
    if prepared is not None:
        prepared(accelerator.unwrap_model(model), optimizer)
    for number, (batch,) in enumerate(loader):
        if resume and number == STEPS // 2:
            accelerator.save_state(str(folder))
            losses = module.losses
            accelerator, module, inner, model, optimizer, _ = begun()
            accelerator.load_state(str(folder))
            module.losses = losses
        with accelerator.accumulate(model):
            accelerator.backward(model(batch))
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return Digest(module, inner, module.losses)


def by_fabric(
    cls: Any, options: dict[str, Any], *, accumulate: int = 1, clip: float | None = None, bf16: bool = False,
    folder: Path | None = None, resume: bool = False, prepared: Prepared | None = None,
) -> Digest:  # fmt: skip
    """Train; with `resume`, a second program continues from the checkpoint of half of the steps."""
    import lightning

    def begun() -> tuple[Any, ...]:
        fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if bf16 else "32-true")
        module = fresh()
        inner = cls(module.parameters(), **options)
        return fabric, module, inner, *fabric.setup(module, inner)

    fabric, module, inner, model, optimizer = begun()
    if prepared is not None:
        prepared(module, optimizer)
    for number, (batch,) in enumerate(batches()):
        if resume and number == STEPS // 2:
            path, losses = f"{folder}/fabric", module.losses
            fabric.save(path, {"model": model, "optimizer": optimizer})
            fabric, module, inner, model, optimizer = begun()
            fabric.load(path, {"model": model, "optimizer": optimizer})
            module.losses = losses
        fabric.backward(model(batch) / accumulate)
        if (number + 1) % accumulate == 0:
            if clip is not None:
                fabric.clip_gradients(model, optimizer, max_norm=clip)
            optimizer.step()
            optimizer.zero_grad()
    return Digest(module, inner, module.losses)


def by_lightning(
    cls: Any, options: dict[str, Any], *, accumulate: int = 1, clip: float | None = None, bf16: bool = False,
    folder: Path | None = None, resume: bool = False, prepared: Prepared | None = None, automatic: bool = True,
    **arguments: Any,
) -> Digest:  # fmt: skip
    """Train; with `resume`, a second Trainer continues from the checkpoint of half of the steps."""
    import lightning

    class Job(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = automatic
            self.model = fresh()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return self.model(batch[0])

        def configure_optimizers(self) -> Any:
            self.inner = cls(self.parameters(), **options)
            return self.inner

        def on_train_start(self) -> None:
            if prepared is not None:
                prepared(self, self.optimizers())

        def on_train_batch_end(self, *args: Any) -> None:
            if resume and self.trainer.global_step == half:  # the end of the epoch would be part of a later checkpoint
                self.trainer.save_checkpoint(path)

    def fit(job: Job, steps: int, checkpoint: str | None) -> None:
        quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar")}
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, max_steps=steps, gradient_clip_val=clip,
            accumulate_grad_batches=accumulate, precision="bf16-mixed" if bf16 else "32-true",
            enable_model_summary=False, **quiet, **arguments,
        )  # fmt: skip
        trainer.fit(job, batches(), ckpt_path=checkpoint, weights_only=False)

    job, path, half = Job(), f"{folder}/lightning", STEPS // accumulate // 2
    if resume:
        fit(job, half, None)
        losses, job = job.model.losses, Job()
        job.model.losses = losses
    fit(job, STEPS // accumulate, path if resume else None)
    return Digest(job.model, job.inner, job.model.losses)


def by_transformers(
    cls: Any, options: dict[str, Any], *, accumulate: int = 1, clip: float | None = None, bf16: bool = False,
    folder: Path | None = None, resume: bool = False, prepared: Prepared | None = None, callbacks: Any = None,
) -> Digest:  # fmt: skip
    """Train; with `resume`, a second Trainer continues from the checkpoint of half of the steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh()

        def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.model(rows)}

    class Call(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if prepared is not None:
                prepared(kwargs["model"], kwargs["optimizer"])

    def trainer(module: Wrapped) -> Any:
        arguments = TrainingArguments(
            str(folder), use_cpu=True, bf16=bf16, max_grad_norm=clip or 0.0, gradient_accumulation_steps=accumulate,
            num_train_epochs=1, per_device_train_batch_size=8, report_to="none", logging_steps=1, disable_tqdm=True,
            save_strategy="steps" if resume else "no", save_steps=STEPS // accumulate // 2, dataloader_pin_memory=False,
            lr_scheduler_type="constant", train_sampling_strategy="sequential",
        )  # fmt: skip
        made = Trainer(
            module, arguments, train_dataset=rows(), callbacks=[*(callbacks or []), Call()],
            data_collator=lambda items: {"rows": torch.stack([row for (row,) in items])},
            optimizer_cls_and_kwargs=(cls, options),
        )  # fmt: skip
        made.remove_callback(PrinterCallback)
        return made

    module = Wrapped()
    made = trainer(module)
    with contextlib.redirect_stdout(None):
        made.train()
        losses = module.model.losses
        if resume:
            half = STEPS // accumulate // 2
            module = Wrapped()
            module.model.losses = losses = losses[: half * accumulate]
            made = trainer(module)
            made.train(resume_from_checkpoint=f"{folder}/checkpoint-{half}")
    norms = [entry["grad_norm"] for entry in made.state.log_history if "grad_norm" in entry]
    return Digest(module.model, made.optimizer.optimizer, losses, norms)


def by_trl(
    cls: Any, options: dict[str, Any], *, folder: Path, accumulate: int = 1, clip: float | None = None,
    bf16: bool = False, resume: bool = False,
) -> list[float]:  # fmt: skip
    """Fine-tune a language model of one layer by TRL's SFTTrainer, and return the losses."""
    from datasets import Dataset as Table
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []

    class Recorded(SFTTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            found = super().compute_loss(*args, **kwargs)
            losses.append((found[0] if isinstance(found, tuple) else found).item())
            return found

    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    texts = torch.randint(2, 32, (STEPS * 4, 12), generator=torch.Generator().manual_seed(0))

    def trainer() -> Any:
        torch.manual_seed(1)
        sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 32}
        heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
        arguments = SFTConfig(
            str(folder), use_cpu=True, bf16=bf16, max_grad_norm=clip or 0.0, gradient_accumulation_steps=accumulate,
            num_train_epochs=1, per_device_train_batch_size=4, report_to="none", logging_steps=1, disable_tqdm=True,
            save_strategy="steps" if resume else "no", save_steps=half, dataloader_pin_memory=False,
            lr_scheduler_type="constant", train_sampling_strategy="sequential", gradient_checkpointing=False,
        )  # fmt: skip
        return Recorded(
            LlamaForCausalLM(LlamaConfig(**sizes, **heads)), arguments, processing_class=words,
            train_dataset=Table.from_dict({"input_ids": texts.tolist()}), optimizer_cls_and_kwargs=(cls, options),
        )  # fmt: skip

    half = STEPS // accumulate // 2
    with contextlib.redirect_stdout(None):
        trainer().train()
        if resume:
            del losses[half * accumulate :]
            trainer().train(resume_from_checkpoint=f"{folder}/checkpoint-{half}")
    return losses
