"""Adam and AdamW for Keras 3, on TensorFlow, JAX and torch: use them instead of those in `keras.optimizers`."""

try:
    import keras as _  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise ModuleNotFoundError("adamas.keras needs Keras: pip install 'adamas[keras]'", name="keras") from error

from adamas.keras.backend import mechanism
from adamas.keras.optimizer import Adam, AdamW

__all__ = ["Adam", "AdamW", "mechanism"]
