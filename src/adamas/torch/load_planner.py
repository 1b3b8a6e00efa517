"""A planner for `torch.distributed.checkpoint.load`: checkpoints of other optimizers, formats and options."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from adamas.options import KNOWN_KEYS
from adamas.state.layout import TENSORS
from adamas.state.shards import is_sharded, wrapped

Names = dict[str, str]  # the name of each tensor in a parameter's state, and its key in the checkpoint


class LoadPlanner(DefaultLoadPlanner):
    """Loads optimizer state that torch.optim, or Adamas with other options, saved.

    `dcp.load` loads into the tensors that `get_optimizer_state_dict` gives, and raises where one is not in the
    checkpoint. With this planner

    - moments in another format are loaded as they are; `set_optimizer_state_dict` converts them,
    - an average that was not saved begins at the next step,
    - an option that was not saved keeps the value given at construction,
    - a parameter that had no state when the checkpoint was saved starts without one.

    All other keys must be in the checkpoint, as without the planner.

    `dcp.load(state, checkpoint_id=path, planner=LoadPlanner())` fills the dict that holds the optimizer's state, and
    `set_optimizer_state_dict` then loads it: docs/distributed.md has the whole recipe.
    """

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Fit the tensors to load into to the checkpoint's."""
        super().set_up_planner(state_dict, metadata, is_coordinator)
        assert metadata is not None, "of the checkpoint"
        saved, wanted, found = (
            metadata.state_dict_metadata,
            defaultdict[str, Names](dict),
            defaultdict[str, Names](dict),
        )
        for key in list(self.state_dict):
            prefix, _, name = key.rpartition(".")
            if "param_groups" in prefix.split(".") and name in KNOWN_KEYS and key not in saved:
                del self.state_dict[key]  # the option keeps its value
            elif "state" in prefix.split(".") and (name in TENSORS or name == "step"):
                wanted[prefix][name] = key
        for key in saved:
            prefix, _, name = key.rpartition(".")
            if prefix in wanted and name in (*TENSORS, "step"):
                found[prefix][name] = key
        for prefix, names in wanted.items():
            self._fit(names, found[prefix], saved)

    def _fit(self, names: Names, found: Names, saved: dict[str, Any]) -> None:
        """Leave out the tensors of a parameter's state that were not saved, and add those that were saved besides."""
        like = next(self.state_dict[key] for name, key in names.items() if name in TENSORS)
        *path, last = self.mappings[next(iter(names.values()))]
        home: Any = self.original_state_dict
        for step in path:
            home = home[step]
        for name in found.keys() - names.keys():
            if last not in names:
                raise ValueError(
                    f"{found[name]} is in the checkpoint, and the optimizer has {', '.join(names)}: a flattened state "
                    "cannot change its format. Load it without flatten_optimizer_state_dict, or with the options that "
                    "it was saved with"
                )
            key, kind = found[name], saved[found[name]]
            home[name] = self.state_dict[key] = _empty(kind, like)
            self.mappings[key] = (*path, name)
        for name in (names.keys() & found.keys()) - {"step"}:  # of the same name, perhaps in another format
            key, kind = names[name], saved[names[name]]
            old = self.state_dict[key]
            if (tuple(kind.size), kind.properties.dtype) != (tuple(old.shape), old.dtype):
                home[self.mappings[key][-1]] = self.state_dict[key] = _empty(kind, like)
        for name in names.keys() - found.keys():
            if name != "step" or not found:
                key = names[name]
                del self.state_dict[key]
                del home[self.mappings.pop(key)[-1]]


def _empty(kind: TensorStorageMetadata, like: Tensor) -> Tensor:
    """A tensor for a saved one, sharded as another tensor of the same state."""
    shape, dtype = tuple(kind.size), kind.properties.dtype
    if not is_sharded(like):
        return torch.empty(shape, dtype=dtype, device=like.device)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mine, _ = compute_local_shape_and_global_offset(shape, like.device_mesh, like.placements)  # pyright: ignore
    return wrapped(torch.empty(mine, dtype=dtype, device=like.device), like, shape)
