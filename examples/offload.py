"""Moments and low bits of the weights in the host's memory: the device has bfloat16 weights and one gradient at a time.

python examples/offload.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from adamas.torch import AdamW

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16).bfloat16().to(device), torch.tensor(labels).to(device)
order = torch.randperm(len(x))
train, test = order[:1400], order[1400:]
model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10)).bfloat16()


class Offloaded:
    """Steps copies of the weights on the host by the native kernel. Gradients travel while backward goes on."""

    def __init__(self, params, **options):
        pinned = {"device": "cpu", "pin_memory": device == "cuda"}  # so that copies need not wait
        self.copies = {p: nn.Parameter(torch.empty_like(p, **pinned).copy_(p.detach())) for p in params}
        self.grads = {p: torch.empty_like(p, requires_grad=False, **pinned) for p in self.copies}
        self.optimizer = AdamW(self.copies.values(), **options)
        self.stream = torch.cuda.Stream() if device == "cuda" else None
        for p in self.copies:
            p.register_post_accumulate_grad_hook(self.send)

    def send(self, p):
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())
            p.grad.record_stream(self.stream)
        with torch.cuda.stream(self.stream):  # does nothing for None
            self.grads[p].copy_(p.grad, non_blocking=True)
        self.copies[p].grad, p.grad = self.grads[p], None

    @torch.no_grad()
    def step(self):
        if self.stream is not None:
            self.stream.synchronize()
        self.optimizer.step(zero_grad=True)
        for p, copy in self.copies.items():
            p.copy_(copy, non_blocking=True)  # the next forward waits for it on the device


options = {"lr": 2e-3, "weight_decay": 0.1, "state_dtype": "packed16", "master_weight_bits": 24, "max_norm": 1.0}
offloaded = Offloaded(model.to(device).parameters(), **options)
for _ in range(8):
    for index in train[torch.randperm(len(train))].split(50):
        nn.functional.cross_entropy(model(x[index]).float(), y[index]).backward()
        offloaded.step()
kept = offloaded.optimizer.state_bytes() / sum(p.numel() for p in model.parameters())
print(f"{kept:.2f} bytes a parameter of state, none of them on the device: {offloaded.optimizer.kernel_choices()[0]}")
print(f"test accuracy {(model(x[test]).argmax(1) == y[test]).float().mean():.1%}")
