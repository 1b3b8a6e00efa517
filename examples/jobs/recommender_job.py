"""Adam or AdamW for a recommender? adamas compare examples/jobs/recommender_job.py:job --budget quick"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from adamas.compare import Job
from adamas.torch import AdamW

USERS, ITEMS, SIZE, BATCH, EPOCHS = 300, 200, 16, 256, 10
fixed = torch.Generator().manual_seed(0)  # one set of ratings and one split for all seeds
tastes, traits = torch.randn(USERS, 3, generator=fixed), torch.randn(ITEMS, 3, generator=fixed)
pairs = torch.randperm(USERS * ITEMS, generator=fixed)[:12000]
users, items = pairs // ITEMS, pairs % ITEMS
ratings = (3 + (tastes[users] * traits[items]).sum(1) / 2 + torch.randn(len(pairs), generator=fixed) / 2).clamp(1, 5)
parts = dict(zip(("train", "validation", "test"), torch.arange(len(pairs)).split([7680, 2160, 2160]), strict=True))


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, SIZE), nn.Embedding(ITEMS, SIZE)
        self.user_bias, self.item_bias = nn.Embedding(USERS, 1), nn.Embedding(ITEMS, 1)
        self.mean = nn.Parameter(torch.tensor(3.0))
        for embedding in (self.user, self.item, self.user_bias, self.item_bias):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, user, item):
        match = (self.user(user) * self.item(item)).sum(-1)
        return match + self.user_bias(user).squeeze(-1) + self.item_bias(item).squeeze(-1) + self.mean


def job(seed, device):
    model = Recommender().to(device)
    user, item, rating = (column.to(device) for column in (users, items, ratings))

    def batches(epoch):
        return parts["train"][torch.randperm(len(parts["train"]))].split(BATCH)

    def loss(rows):
        return mse_loss(model(user[rows], item[rows]), rating[rows])

    def evaluate(split):
        return {"rmse": loss(parts[split]).sqrt().item()}

    groups = [{"params": [weight for name, weight in model.named_parameters() if name != "mean"]}]
    groups += [{"params": [model.mean], "weight_decay": 0.0}]  # only the embeddings decay
    return Job(model, batches, loss, evaluate, EPOCHS, steps_per_epoch=30, metric="rmse", parameter_groups=groups)


if __name__ == "__main__":
    made = job(0, "cpu")
    optimizer = AdamW(made.parameter_groups, lr=1e-2, weight_decay=0.1)
    for batch in (batch for epoch in range(EPOCHS) for batch in made.batches(epoch)):
        optimizer.zero_grad()
        made.loss(batch).backward()
        optimizer.step()
    with torch.no_grad():
        print(f"test rmse {made.evaluate('test')['rmse']:.3f}")
