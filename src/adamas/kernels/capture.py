"""CUDA graphs: the tensors that a captured step reads must outlive the graph.

A graph holds addresses and no tensors, so these tensors must keep their memory for as long as the graph is replayed.
Nothing tells how long that is.
"""

from __future__ import annotations

import torch

_kept: list[object] = []


def is_captured(device: torch.device) -> bool:
    """Return whether a graph is capturing what this device is given to do."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def keep(tensors: object, device: torch.device) -> None:
    """Keep tensors until the process ends if a graph is capturing them; otherwise do nothing."""
    if is_captured(device):
        _kept.append(tensors)
