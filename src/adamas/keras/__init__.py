"""Adam and AdamW for Keras 3, on TensorFlow, JAX and torch: use them instead of those in `keras.optimizers`."""

from adamas.extras import needs

with needs("keras", extra="keras"):
    import keras as _  # noqa: F401

from adamas.keras.backend import mechanism
from adamas.keras.optimizer import Adam, AdamW

__all__ = ["Adam", "AdamW", "mechanism"]
