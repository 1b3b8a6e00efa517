"""The Trainer of transformers makes the optimizer, stops after an epoch and resumes: the same weights, bit for bit.

python examples/transformers_resumed.py
"""

import os
from tempfile import TemporaryDirectory

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import torch
from sklearn.datasets import load_digits
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from adamas.torch import AdamW

SIZES = {"vocab_size": 17, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}
images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
tokens = images.view(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1).long()  # images of 4x4 pixels in 17 greys
order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0)).split([1400, 397])
train, test = ([{"input_ids": tokens[row], "labels": labels[row]} for row in rows] for rows in order)


def trainer(folder):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=10, initializer_range=0.1, **SIZES))
    course = {"num_train_epochs": 4, "per_device_train_batch_size": 50, "gradient_accumulation_steps": 2}
    quiet = {"report_to": "none", "logging_steps": 14, "disable_tqdm": True, "use_cpu": True}
    arguments = TrainingArguments(
        folder,
        learning_rate=5e-3,  # for the schedule; the optimizer's own is below
        weight_decay=0.1,  # of matrices: the Trainer makes the groups
        max_grad_norm=0.0,  # the optimizer clips, and measures the norm that the Trainer logs
        save_strategy="epoch",
        dataloader_pin_memory=False,
        **course,
        **quiet,
    )
    ours = (AdamW, {"lr": 5e-3, "max_norm": 1.0, "ema_decay": 0.9})
    made = Trainer(model, arguments, train_dataset=train, optimizer_cls_and_kwargs=ours)
    made.remove_callback(PrinterCallback)
    return made


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        whole, resumed = trainer(folder), trainer(folder)
        whole.train()
        resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-28")  # the end of the second epoch
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other)
        print("the resumed run has the weights of the whole one, bit for bit")
        accuracy = (torch.tensor(resumed.predict(test).predictions).argmax(1) == labels[order[1]]).float().mean()
        print(f"test accuracy {accuracy:.1%}")
