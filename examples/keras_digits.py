"""Train a small network on handwritten digits with Keras on TensorFlow: no decay for biases, a schedule, a saved model.

python examples/keras_digits.py
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from adamas.keras import AdamW, mechanism

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = (images / 16).astype("float32"), labels
order = np.random.permutation(len(x))
train, test = order[:1400], order[1400:]
epochs, batch = 20, 50

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(128),
        keras.layers.LayerNormalization(),
        keras.layers.Activation("gelu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(10),
    ]
)
rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=epochs * len(train) // batch)
optimizer = AdamW(rate, weight_decay=0.1, global_clipnorm=1.0)
optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss, metrics=["accuracy"])
model.fit(x[train], y[train], batch_size=batch, epochs=epochs, verbose=0)

print("TensorFlow {} {}: {} ({})".format(tf.__version__, keras.backend.backend(), *mechanism()))
print(f"test accuracy {model.evaluate(x[test], y[test], verbose=0)[1]:.1%}")

# A saved model goes on with its moments, its step and its exclusions from weight decay.
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "digits.keras")
    loaded = keras.saving.load_model(Path(folder) / "digits.keras")
    loaded.fit(x[train], y[train], batch_size=batch, verbose=0)
print(f"trained for {loaded.optimizer.iterations.numpy()} steps in all")
