"""Clip, average, skip and clear inside the step: a training loop of two lines. The averaged weights are evaluated.

python examples/phase.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from adamas.torch import AdamW

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x))
train, test = order[:1400], order[1400:]

model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.GELU(), nn.Linear(128, 10))
optimizer = AdamW(model.parameters(), lr=1e-2, max_norm=1.0, ema_decay=0.95, skip_nonfinite=True)


def batches() -> list[torch.Tensor]:
    return list(train[torch.randperm(len(train))].split(50))


def accuracy() -> float:
    model.eval()
    with torch.no_grad():
        right = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    model.train()
    return right


for epoch in range(8):
    for index in batches():
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step(zero_grad=True)  # clips, steps, averages the weights, sets the gradients to None
    print(f"epoch {epoch}: the last batch's gradient norm was {optimizer.grad_norm:.2f} before clipping")

(nn.functional.cross_entropy(model(x[train]), y[train]) * torch.inf).backward()  # a batch with infinite gradients
optimizer.step(zero_grad=True)
print(f"{optimizer.skipped_steps} step was skipped: its gradients were inf or NaN, and nothing changed")

print(f"weights: test accuracy {accuracy():.1%}")
with optimizer.averaged():  # inside, the weights are their averages; afterwards they are as before
    torch.optim.swa_utils.update_bn((x[index] for index in batches()), model)
    print(f"averaged weights: test accuracy {accuracy():.1%}")
