"""Train a small network on handwritten digits with Equinox: adamas.jax.adamw in place of optax.adamw.

python examples/equinox_digits.py
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from adamas.jax import adamw

images, labels = load_digits(return_X_y=True)
x, y = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
order = np.random.default_rng(0).permutation(len(x))
train, test = order[:1400], order[1400:]

model = eqx.nn.MLP(64, 10, width_size=128, depth=1, key=jax.random.key(0))
epochs, batch_size = 10, 50
schedule = optax.cosine_decay_schedule(3e-3, epochs * len(train) // batch_size)
optimizer = adamw(schedule, weight_decay=0.1, mu_dtype=jnp.float32)
state = optimizer.init(eqx.filter(model, eqx.is_array))


def loss(model: eqx.Module, batch: jax.Array, target: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(batch), target).mean()


@eqx.filter_jit(donate="all-except-first")
def step(data: tuple, model: eqx.Module, state: optax.OptState) -> tuple:
    grads = eqx.filter_grad(loss)(model, *data)
    updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state


for epoch in range(epochs):
    shuffled = np.random.default_rng(epoch).permutation(train).reshape(-1, batch_size)
    for batch in shuffled:
        model, state = step((x[batch], y[batch]), model, state)

accuracy = (jax.vmap(model)(x[test]).argmax(1) == y[test]).mean()
print(f"test accuracy {accuracy:.1%}")
