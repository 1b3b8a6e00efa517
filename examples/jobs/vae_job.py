"""Adam or AdamW for a variational autoencoder? adamas compare examples/jobs/vae_job.py:job --budget quick"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from adamas.compare import Job
from adamas.torch import AdamW

LATENT, BATCH, EPOCHS = 8, 100, 12
images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # one split for all seeds
parts = dict(zip(("train", "validation", "test"), order.split([1000, 300, 497]), strict=True))


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(z), mean, log_variance


def job(seed, device):
    model, x = VAE().to(device), images.to(device)

    def batches(epoch):
        return parts["train"][torch.randperm(1000)].split(BATCH)

    def losses(rows):
        logits, mean, log_variance = model(x[rows])
        reconstruction = bce(logits, x[rows], reduction="none").sum(1).mean()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"reconstruction": reconstruction, "divergence": divergence}  # the comparison adds them up

    def evaluate(split):
        found = losses(parts[split])
        return {"elbo": -sum(found.values()).item(), **{name: value.item() for name, value in found.items()}}

    return Job(model, batches, losses, evaluate, EPOCHS, steps_per_epoch=10, metric="elbo", maximize=True)


if __name__ == "__main__":
    made = job(0, "cpu")
    optimizer = AdamW(made.model.parameters(), lr=3e-3, weight_decay=0.01)
    for batch in (batch for epoch in range(EPOCHS) for batch in made.batches(epoch)):
        optimizer.zero_grad()
        sum(made.loss(batch).values()).backward()
        optimizer.step()
    with torch.no_grad():
        print(f"test elbo {made.evaluate('test')['elbo']:.2f}")
