"""What weight decay does to a model: measured live or in a checkpoint (`XRay`), claims tested, a page to play with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamas.understand.xray.live import XRay

__all__ = ["XRay"]


def __getattr__(name: str) -> Any:
    """Import torch only when a name that needs it is used."""
    if name == "XRay":
        from adamas.understand.xray.live import XRay

        return XRay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
