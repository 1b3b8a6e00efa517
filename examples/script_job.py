"""Adam or AdamW for a script with its own training loop? adamas compare examples/script_job.py:job --budget quick"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from adamas.compare import OwnLoop
from adamas.torch import AdamW

EPOCHS, BATCH = 15, 50
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))  # one split for all seeds
parts = dict(zip(("train", "validation", "test"), order.split([1000, 300, 497]), strict=True))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Dropout(0.1))
        self.name, self.draw = nn.Linear(128, 10), nn.Linear(128, 64)

    def forward(self, inputs):
        understood = self.body(inputs)
        return self.name(understood), self.draw(understood)


def train(model, optimizer):
    steps = EPOCHS * len(parts["train"]) // BATCH
    warm_up, cosine = LinearLR(optimizer, 0.1, total_iters=steps // 10), CosineAnnealingLR(optimizer, steps * 9 // 10)
    scheduler = SequentialLR(optimizer, [warm_up, cosine], [steps // 10])
    for _ in range(EPOCHS):
        for rows in parts["train"][torch.randperm(len(parts["train"]))].split(BATCH):
            names, drawings = model(x[rows])
            optimizer.zero_grad()
            (cross_entropy(names, y[rows]) + mse_loss(drawings, x[rows])).backward()
            optimizer.step()
            scheduler.step()


def job(seed, device):
    model = Net()  # Python, NumPy and torch are seeded before the call, and fix weights, data order and dropout

    def evaluate(split):
        names, _ = model(x[parts[split]])
        right = names.argmax(1) == y[parts[split]]
        return {"loss": cross_entropy(names, y[parts[split]]), "accuracy": right.float().mean()}

    return OwnLoop(model, lambda optimizer: train(model, optimizer), evaluate, epochs=EPOCHS)


if __name__ == "__main__":
    made = job(0, "cpu")
    made.fit(AdamW(made.model.parameters(), lr=3e-3, weight_decay=0.1))
    print(f"test accuracy {made.evaluate('test')['accuracy']:.1%}")
