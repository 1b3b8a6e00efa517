"""Adam or AdamW in a Lightning module? adamas compare examples/jobs/lightning_job.py:job --budget quick"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset, random_split

from adamas.compare import OwnLoop
from adamas.torch import AdamW

EPOCHS, BATCH = 8, 50
images, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
split = random_split(digits, [1000, 300, 497], torch.Generator().manual_seed(0))  # one split for all seeds
parts = dict(zip(("train", "validation", "test"), split, strict=True))


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
        self.make_optimizer = lambda: AdamW(self.parameters(), lr=3e-3, weight_decay=0.1)

    def training_step(self, batch, _):
        x, y = batch
        return cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        optimizer = self.make_optimizer()
        schedule = OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=EPOCHS * 1000 // BATCH)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def job(seed, device):
    model = Classifier().to(device)  # Python, NumPy and torch are seeded before the call
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

    def fit(optimizer):
        model.make_optimizer = lambda: optimizer
        kind = "gpu" if device.startswith("cuda") else "cpu"
        trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator=kind, enable_model_summary=False, **quiet)
        trainer.fit(model, DataLoader(parts["train"], BATCH, shuffle=True))

    def evaluate(split):
        x, y = next(iter(DataLoader(parts[split], len(parts[split]))))
        logits = model.net(x.to(model.device)).cpu()
        return {"loss": cross_entropy(logits, y), "accuracy": (logits.argmax(1) == y).float().mean()}

    return OwnLoop(model, fit, evaluate, epochs=EPOCHS)


if __name__ == "__main__":
    made = job(0, "cpu")
    made.fit(made.model.make_optimizer())
    print(f"test accuracy {made.evaluate('test')['accuracy']:.1%}")
