"""A Lightning module whose backward steps: accumulation and clipping as Lightning's Trainer is told, gradients freed.

python examples/lightning_lean.py
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from adamas.torch import AdamW, param_groups
from adamas.torch.trainers.lightning import ReleaseGradients

images, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
train, test = random_split(digits, [1400, 397], torch.Generator().manual_seed(0))


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10))

    def training_step(self, batch, _):
        x, y = batch
        return cross_entropy(self.net(x), y)

    def on_train_epoch_end(self):
        # The object that Lightning hands back reads the optimizer's values.
        print(f"epoch {self.current_epoch}: gradient norm {self.optimizers().grad_norm:.2f} before clipping")

    def configure_optimizers(self):
        return AdamW(param_groups(self, 0.1), lr=3e-3, state_dtype="packed16", ema_decay=0.95)


if __name__ == "__main__":
    lightning.seed_everything(0)
    model = Classifier()
    trainer = lightning.Trainer(
        max_epochs=8,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        callbacks=[ReleaseGradients()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(train, batch_size=25, shuffle=True))
    x, y = next(iter(DataLoader(test, len(test))))
    with torch.no_grad(), trainer.optimizers[0].averaged():
        print(f"averaged weights: test accuracy {(model.net(x).argmax(1) == y).float().mean():.1%}")
