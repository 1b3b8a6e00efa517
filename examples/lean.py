"""Train bfloat16 weights in a third of float32's memory: packed moments, 24-bit masters, gradients freed in backward.

python examples/lean.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from adamas.torch import AdamW, release_gradients

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16).bfloat16(), torch.tensor(labels)
order = torch.randperm(len(x))
train, test = order[:1400], order[1400:]

model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10)).bfloat16()
weights = sum(param.numel() for param in model.parameters())
optimizer = AdamW(model.parameters(), lr=2e-3, weight_decay=0.1, state_dtype="packed16", master_weight_bits=24)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
release_gradients(model, optimizer)  # from now on, backward steps each parameter

for _ in range(10):
    for index in train[torch.randperm(len(train))].split(50):
        nn.functional.cross_entropy(model(x[index]).float(), y[index]).backward()
        optimizer.step()  # ends the step that backward took
    schedule.step()

kept = sum(param.nbytes for param in model.parameters()) + optimizer.state_bytes()
assert all(param.grad is None for param in model.parameters())
print(f"{kept / weights:.2f} bytes a parameter: weight, moments and low bits; the gradients are gone (float32: 16)")
with torch.no_grad():
    right = (model(x[test]).argmax(1) == y[test]).float().mean().item()
print(f"test accuracy {right:.1%}")

# The weights with all of their 24 bits, to save or to continue in float32; and the state in the form of torch.optim.
exact = {name: optimizer.master(param) for name, param in model.named_parameters()}
torch.optim.AdamW(model.parameters()).load_state_dict(optimizer.state_dict(decoded=True))
print(f"{exact['2.weight'].dtype} weights, and moments that torch.optim.AdamW loads")
