"""Adam and AdamW for JAX: transformations for optax, and fused steps that work in place on the CPU."""

from adamas.extras import needs

with needs("jax", "optax", extra="jax"):
    from adamas.jax.fused import Fused, FusedState, fused_adam, fused_adamw
    from adamas.jax.transform import adam, adamw
    from adamas.kernels.xla import mechanism

__all__ = ["Fused", "FusedState", "adam", "adamw", "fused_adam", "fused_adamw", "mechanism"]
