"""Adam or AdamW for a recurrent network? adamas compare examples/jobs/gru_job.py:job --budget quick"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from adamas.compare import Job
from adamas.torch import AdamW, param_groups

LETTERS, BATCH, EPOCHS = 6, 64, 6
fixed = torch.Generator().manual_seed(0)  # one set of sequences for all seeds


def sequences(count):
    walk, stray = torch.randint(LETTERS, (count, 12), generator=fixed), torch.rand(count, 12, generator=fixed) < 0.1
    for at in range(2, 12):
        walk[:, at] = torch.where(stray[:, at], walk[:, at], (walk[:, at - 1] + walk[:, at - 2] + 1) % LETTERS)
    return walk


parts = {"train": sequences(960), "validation": sequences(400), "test": sequences(400)}


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(LETTERS, 16), nn.Linear(32, LETTERS)
        self.gru = nn.GRU(16, 32, batch_first=True)

    def forward(self, letters):
        return self.head(self.gru(self.embed(letters))[0])


def job(seed, device):
    model = Predictor().to(device)

    def batches(epoch):
        return parts["train"][torch.randperm(960)].to(device).split(BATCH)

    def loss(walks):
        return cross_entropy(model(walks[:, :-1]).flatten(0, 1), walks[:, 1:].flatten())

    def evaluate(split):
        walks = parts[split].to(device)
        right = model(walks[:, :-1]).argmax(-1) == walks[:, 1:]
        return {"loss": loss(walks), "top1": right.float().mean()}

    groups = param_groups(model, weight_decay=1.0)  # biases and the embedding do not decay
    return Job(model, batches, loss, evaluate, EPOCHS, 960 // BATCH, parameter_groups=groups, max_norm=1.0)


if __name__ == "__main__":
    made = job(0, "cpu")
    optimizer = AdamW(param_groups(made.model, weight_decay=0.1), lr=1e-2, max_norm=1.0)
    for batch in (batch for epoch in range(EPOCHS) for batch in made.batches(epoch)):
        optimizer.zero_grad()
        made.loss(batch).backward()
        optimizer.step()
    print(f"test accuracy {made.evaluate('test')['top1']:.1%}")
