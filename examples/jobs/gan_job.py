"""Adam or AdamW for a GAN, with two optimizers? adamas compare examples/jobs/gan_job.py:job --budget quick"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from adamas.compare import OwnLoop
from adamas.torch import AdamW

EPOCHS, STEPS, BATCH, NOISE = 10, 30, 64, 8
fixed = torch.Generator().manual_seed(0)  # the points and the noise to judge by are the same for all seeds


def rings(count):
    angle, which = 2 * torch.pi * torch.rand(count, generator=fixed), torch.randint(1, 3, (count,), generator=fixed)
    return torch.stack([angle.cos(), angle.sin()], 1) * which[:, None] / 2


parts = {"train": rings(2000), "validation": rings(500), "test": rings(500)}
noise = torch.randn(500, NOISE, generator=fixed)


def distance(fake, real):  # the energy distance between two sets of points, as a length
    squared = 2 * torch.cdist(fake, real).mean() - torch.cdist(fake, fake).mean() - torch.cdist(real, real).mean()
    return squared.clamp(min=0).sqrt()


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


def job(seed, device):
    generator, discriminator = mlp(NOISE, 2).to(device), mlp(2, 1).to(device)
    real, ones, zeros = parts["train"].to(device), torch.ones(BATCH, 1).to(device), torch.zeros(BATCH, 1).to(device)

    def fit(optimizers):
        opt_g, opt_d = optimizers["generator"], optimizers["discriminator"]
        for _ in range(EPOCHS * STEPS):
            fake = generator(torch.randn(BATCH, NOISE, device=device))
            batch = real[torch.randint(len(real), (BATCH,), device=device)]
            opt_d.zero_grad()
            (bce(discriminator(batch), ones) + bce(discriminator(fake.detach()), zeros)).backward()
            opt_d.step()
            opt_g.zero_grad()
            bce(discriminator(fake), ones).backward()
            opt_g.step()

    def evaluate(split):
        return {"distance": distance(generator(noise.to(device)), parts[split].to(device)).item()}

    nets = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    groups = {name: [{"params": net.parameters(), "betas": (0.5, 0.999)}] for name, net in nets.items()}
    return OwnLoop(nets, fit, evaluate, EPOCHS, metric="distance", parameter_groups=groups)


if __name__ == "__main__":
    made = job(0, "cpu")
    made.fit({name: AdamW(groups, lr=1e-3, weight_decay=0.01) for name, groups in made.parameter_groups.items()})
    print(f"test distance {made.evaluate('test')['distance']:.3f}")
