"""Train a small network on handwritten digits with Flax NNX: the fused AdamW steps the weights in place.

python examples/jax_digits.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from adamas.jax import fused_adamw

images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
order = np.random.default_rng(0).permutation(len(x))
train, test = order[:1400], order[1400:]


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.norm = nnx.LayerNorm(128, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, batch: jax.Array) -> jax.Array:
        return self.out(nnx.gelu(self.norm(self.hidden(batch))))


def loss(params: nnx.State, batch: jax.Array, target: jax.Array) -> jax.Array:
    logits = nnx.merge(structure, params)(batch)
    return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()


epochs, batch_size = 10, 50
steps = epochs * len(train) // batch_size
optimizer = fused_adamw(
    optax.cosine_decay_schedule(3e-3, steps),
    weight_decay=0.1,
    mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params),  # no decay for biases and norms
)
structure, params = nnx.split(Network(nnx.Rngs(0)), nnx.Param)
state = optimizer.init(params)
step = jax.jit(optimizer.step, donate_argnums=(0, 1))
gradient = jax.jit(jax.grad(loss))
for epoch in range(epochs):
    shuffled = np.random.default_rng(epoch).permutation(train).reshape(-1, batch_size)
    for batch in shuffled:
        params, state = step(params, state, gradient(params, x[batch], y[batch]))

accuracy = (nnx.merge(structure, params)(x[test]).argmax(1) == y[test]).mean()
print(f"test accuracy {accuracy:.1%}")
