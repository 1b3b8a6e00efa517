"""Train a small network on handwritten digits in NumPy alone: forward, backward, AdamW in place.

python examples/numpy_digits.py
"""

import numpy as np
from sklearn.datasets import load_digits

from adamas.numpy import AdamW

rng = np.random.default_rng(0)
images, labels = load_digits(return_X_y=True)
x, y = (images / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels]
order = rng.permutation(len(x))
train, test = order[:1400], order[1400:]


def layer(inputs: int, outputs: int) -> dict[str, np.ndarray]:
    bound = inputs**-0.5
    return {
        "w": rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32),
        "b": np.zeros(outputs, np.float32),
    }


params = {"hidden": layer(64, 128), "out": layer(128, 10)}


def forward(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(batch @ params["hidden"]["w"] + params["hidden"]["b"], 0)
    logits = hidden @ params["out"]["w"] + params["out"]["b"]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return hidden, shifted / shifted.sum(axis=1, keepdims=True)


optimizer = AdamW(params, lr=3e-3, weight_decay=0.1, max_norm=1.0)
epochs, batch_size = 10, 50
steps = epochs * len(train) // batch_size
for step in range(steps):
    optimizer.lr = 3e-3 * (1 - step / steps)
    batch = rng.choice(train, batch_size, replace=False)
    hidden, probabilities = forward(x[batch])
    d_logits = (probabilities - y[batch]) / batch_size
    d_hidden = (d_logits @ params["out"]["w"].T) * (hidden > 0)
    optimizer.step({
        "hidden": {"w": x[batch].T @ d_hidden, "b": d_hidden.sum(axis=0)},
        "out": {"w": hidden.T @ d_logits, "b": d_logits.sum(axis=0)},
    })  # fmt: skip

accuracy = (forward(x[test])[1].argmax(1) == labels[test]).mean()
print(f"test accuracy {accuracy:.1%}")
