"""Adam and AdamW for JAX: transformations for optax, and fused steps that work in place on the CPU."""

from adamas.extras import needs

with needs("jax", "optax", extra="jax"):
    import jax
    import optax

OLDEST = (0, 7, 2)  # of JAX: older versions compile float64 factors in a 32-bit program wrongly
if jax.__version_info__ < OLDEST:
    raise ImportError(f"jax {jax.__version__} is too old: pip install 'jax>={'.'.join(map(str, OLDEST))}'")

from adamas.jax.fused import Fused, FusedState, fused_adam, fused_adamw  # noqa: E402
from adamas.jax.transform import adam, adamw  # noqa: E402
from adamas.kernels.xla import mechanism  # noqa: E402

del optax
__all__ = ["Fused", "FusedState", "adam", "adamw", "fused_adam", "fused_adamw", "mechanism"]
