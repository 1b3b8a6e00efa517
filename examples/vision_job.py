"""Adam or AdamW for a small convolutional network? adamas compare examples/vision_job.py:job --budget quick"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from adamas.compare import Job, check

images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
images = (images / 16).float().view(-1, 1, 8, 8)
rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))  # one split for all seeds
parts = dict(zip(("train", "validation", "test"), rows.split([900, 400, 497]), strict=True))


def job(seed, device):
    x, y = images.to(device), labels.to(device)
    conv = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1)]
    head = [nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10)]
    model = nn.Sequential(*conv, *head).to(device)  # torch is seeded before the call

    def batches(epoch):
        return parts["train"][torch.randperm(900)].split(50)

    def loss(batch):
        return cross_entropy(model(x[batch]), y[batch], label_smoothing=0.1)

    def evaluate(split):
        logits, truth = model(x[parts[split]]), y[parts[split]]
        return {"loss": cross_entropy(logits, truth).item(), "accuracy": (logits.argmax(1) == truth).float().mean()}

    return Job(model, batches, loss, evaluate, epochs=10, steps_per_epoch=18, stackable=True)


if __name__ == "__main__":
    print("problems:", check(job), "\n", __doc__)
