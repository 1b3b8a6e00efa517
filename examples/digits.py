"""Train a small network on handwritten digits with AdamW: no decay for biases and norms, a schedule, a checkpoint.

python examples/digits.py
"""

import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import nn

from adamas.torch import AdamW, param_groups

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x))
train, test = order[:1400], order[1400:]

model = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 10))
groups = param_groups(model, weight_decay=0.1)
Console().print(groups.table())

optimizer = AdamW(groups, lr=3e-3)
epochs, batch = 10, 50
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * len(train) // batch)
for _ in range(epochs):
    for index in train[torch.randperm(len(train))].split(batch):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
        schedule.step()

with torch.no_grad():
    accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
print(f"test accuracy {accuracy:.1%}")
for what, kernel, reason in optimizer.kernel_choices():
    print(f"{what}: {kernel} ({reason})")

# The state loads into torch.optim.AdamW, and back.
theirs = torch.optim.AdamW([{"params": group["params"]} for group in param_groups(model, weight_decay=0.1)])
theirs.load_state_dict(optimizer.state_dict())
steps = int(theirs.state[model[0].weight]["step"])
print(f"moved to {type(theirs).__module__}.{type(theirs).__name__} after {steps} steps")
