"""What CUDA graphs ask of a step that they capture.

A graph holds addresses and no tensors: whatever a captured step reads must stay where it is for as long as the graph is
replayed, and nothing tells how long that is.
"""

from __future__ import annotations

import torch

_kept: list[object] = []


def is_captured(device: torch.device) -> bool:
    """Whether what is now launched on a device goes into a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def keep(tensors: object, device: torch.device) -> None:
    """Keep what a graph that is being captured will read, for as long as the process lives; else do nothing."""
    if is_captured(device):
        _kept.append(tensors)
