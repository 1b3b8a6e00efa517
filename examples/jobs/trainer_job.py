"""Adam or AdamW in a Hugging Face Trainer? adamas compare examples/jobs/trainer_job.py:job --budget quick"""

import os
from tempfile import TemporaryDirectory

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import torch
from sklearn.datasets import load_digits
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback

from adamas.compare import OwnLoop
from adamas.torch import AdamW

EPOCHS, BATCH = 3, 50
SIZES = {"vocab_size": 17, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
tokens = images.view(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1).long()  # images of 4x4 pixels in 17 greys
rows = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))  # one split for all seeds
parts = dict(zip(("train", "validation", "test"), rows.split([1000, 300, 497]), strict=True))


def examples(split):
    return [{"input_ids": tokens[row], "labels": labels[row]} for row in parts[split]]


def job(seed, device):
    torch.manual_seed(seed)  # for the weights; the Trainer seeds again, with the seeds below
    model = BertForSequenceClassification(BertConfig(num_labels=10, initializer_range=0.1, **SIZES))

    def trainer(folder, optimizers=(None, None)):
        seeds = {"seed": seed, "data_seed": seed, "use_cpu": device == "cpu"}
        course = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "max_grad_norm": 1.0}
        quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        arguments = TrainingArguments(folder, **seeds, **course, **quiet)  # lr and weight decay come from the optimizer
        made = Trainer(model, arguments, train_dataset=examples("train"), optimizers=optimizers)
        made.remove_callback(PrinterCallback)
        return made

    def fit(optimizer):
        steps = EPOCHS * 1000 // BATCH
        with TemporaryDirectory() as folder:
            trainer(folder, (optimizer, get_scheduler("cosine", optimizer, steps // 10, steps))).train()

    def evaluate(split):
        with TemporaryDirectory() as folder:
            logits, truth = torch.tensor(trainer(folder).predict(examples(split)).predictions), labels[parts[split]]
        loss, right = torch.nn.functional.cross_entropy(logits, truth), logits.argmax(1) == truth
        return {"loss": loss.item(), "accuracy": right.float().mean().item()}

    return OwnLoop(model, fit, evaluate, epochs=EPOCHS)


if __name__ == "__main__":
    made = job(0, "cpu")
    made.fit(AdamW(made.model.parameters(), lr=5e-3, weight_decay=0.1))
    print(f"test accuracy {made.evaluate('test')['accuracy']:.1%}")
