"""Split a model's parameters into groups with and without weight decay, with a reason for each parameter."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from glob import escape
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from adamas.decay import layer_lr
from adamas.scalars import number

if TYPE_CHECKING:
    from rich.table import Table

_POSITIONS = ("*pos_emb*", "*position_emb*", "*positional_emb*", "*rel_pos*", "*relative_position*")
_SCALES = ("*layer_scale*", "*logit_scale", "gamma", "beta", "A_log")
# Last components of the names of parameters that are no matrices, whatever their shape: positions, tokens, scales.
NO_DECAY_NAMES: tuple[str, ...] = (*_POSITIONS, "*_token", "*_tokens", *_SCALES)
_BIAS = r"(^|_)bias(es)?(_|$)"  # `re` compiles and keeps it at the first search, so that importing is fast
# It matches LlamaRMSNorm, LayerNorm2d, RMSNormGated, but not NormalFlow, NormedLinear, LayerNormLSTMCell with matrices.
_NORM = r"[Nn]orm(ali[sz]ation)?(?![a-z])(?!\w*(Linear|Conv|LSTM|GRU|RNN|Attention|M[Ll][Pp]|Block))"
_MATRICES = ("torch.nn.modules.linear", "torch.nn.modules.conv", "torch.nn.modules.rnn")


class Placement(NamedTuple):
    """The decision on whether one parameter decays, and why."""

    name: str  # the parameter's first name in `model.named_parameters()`
    param: nn.Parameter
    decays: bool  # whether weight decay applies to the parameter
    reason: str  # the rule that decided
    layer: int  # the depth for `layer_decay`: 0 before the blocks, 1, 2, ... in them, one more after; 0 without it


class ParamGroups(list[dict[str, Any]]):
    """The list of groups that `param_groups` returns, with the decision on each parameter, also on frozen ones."""

    placements: tuple[Placement, ...] = ()

    def table(self) -> Table:
        """A table with a row for each parameter: its group, the group's weight decay and lr, and the reason.

        The values are the present ones, because an optimizer made from the groups writes into them. "-" is not set.

        Example:
            >>> print(*param_groups(nn.Linear(4, 2), 0.1).table().columns[-1].cells, sep=" | ")
            decayed: Linear weight | bias
        """
        from rich.table import Table
        from rich.text import Text

        where: dict[int, tuple[str, dict[str, Any]]] = {}
        for index, group in enumerate(self):
            for entry in group["params"]:  # (name, parameter); an optimizer replaces the pair by the parameter
                where[id(entry[1] if isinstance(entry, tuple) else entry)] = str(index), group
        table = Table("name", "shape", "group", "weight decay", "lr", "why")
        for name, param, _, reason, _ in self.placements:
            index, group = where.get(id(param), ("-", {}))
            decay, lr = (f"{group[key]:g}" if key in group else "-" for key in ("weight_decay", "lr"))
            shape = " x ".join(map(str, param.shape)) or "scalar"
            table.add_row(*map(Text, (name, shape, index, decay, lr, reason)))
        return table


class _Role(NamedTuple):
    """One registration of a parameter; `alias` is the name without the parts that `torch.nn.utils.parametrize` adds."""

    name: str
    alias: str
    owner: nn.Module
    param: nn.Parameter
    is_magnitude: bool

    def describe(self) -> tuple[str, str]:
        """The name of the owner's type and the last component of the parameter's name."""
        return type(self.owner).__name__.removeprefix("Parametrized"), self.alias.rpartition(".")[2]


def _roles(model: nn.Module) -> Iterator[_Role]:
    """All registrations of all parameters, in the order of `named_parameters`."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, param in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            own_name = name.rpartition(".")[2]
            if isinstance(module, ParametrizationList):
                owner, _, tensor = f".{prefix}".rpartition(".parametrizations.")
                is_magnitude = own_name == "original0" and type(module[0]).__name__ == "_WeightNorm"
                yield _Role(name, f"{owner}.{tensor}"[1:], model.get_submodule(owner[1:]), param, is_magnitude)
            else:
                is_magnitude = own_name.endswith("_g") and hasattr(module, f"{own_name[:-1]}v")
                yield _Role(name, name, module, param, is_magnitude)


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern without a dot matches the last component, or one with a dot the name from any component on."""
    if "." not in pattern:
        return fnmatchcase(name.rpartition(".")[2], pattern)
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _strings(what: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{what}={value!r} must be a collection of strings: write ({value!r},)")
    return tuple(map(str, value))


def _declared(model: nn.Module) -> Iterator[str]:
    """Patterns of whole names from `no_weight_decay` of the model and of its submodules."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        declared: Any = getattr(module, "no_weight_decay", ())
        for name in _strings("no_weight_decay", declared() if callable(declared) else declared or ()):
            yield f"{escape(prefix)}.{name}".removeprefix(".")


def _why_no_decay(role: _Role, patterns: tuple[str, ...], declared: tuple[str, ...]) -> str | None:
    """The first rule that exempts a parameter from decay in one of its roles, or None: all rules are here."""
    names, (kind, own_name), ancestors = {role.name, role.alias}, role.describe(), type(role.owner).__mro__
    holds_matrices = any(c.__module__ in _MATRICES for c in ancestors)
    if any(fnmatchcase(name, pattern) for name in names for pattern in declared):
        return "no_weight_decay()"
    if getattr(role.param, "_no_weight_decay", False):
        return "marked _no_weight_decay"
    if matched := [pattern for pattern in patterns if any(_matches(name, pattern) for name in names)]:
        return f"name matches {matched[0]}"
    if not holds_matrices and any(re.search(_NORM, c.__name__) for c in ancestors):
        return f"normalisation layer ({kind})"
    if isinstance(role.owner, (nn.Embedding, nn.EmbeddingBag)):
        return f"embedding ({kind})"
    if re.search(_BIAS, own_name):
        return "bias"
    if role.is_magnitude:
        return "weight-norm magnitude"
    shape = role.param.shape
    if len(shape) > 2 and not holds_matrices and sum(size > 1 for size in shape) <= 1:
        return "a vector in more dimensions"
    return f"ndim {len(shape)}" if len(shape) <= 1 else None


def _blocks(model: nn.Module) -> dict[str, int]:
    """The repeated blocks (two or more of one class) of the outermost stacks, numbered from 1 over all stacks."""
    blocks: dict[str, int] = {}
    for prefix, module in model.named_modules():
        is_numbered = isinstance(module, nn.ModuleDict) and all(key.isdigit() for key in module)
        inside = any(f"{prefix}.".startswith(f"{block}.") for block in blocks)
        if not inside and (is_numbered or isinstance(module, (nn.ModuleList, nn.Sequential))):
            nested = [(k, m) for k, m in module.named_children() if list(m.children()) and list(m.parameters())]
            kinds = Counter(type(child) for _, child in nested)
            for key, child in nested:
                if kinds[type(child)] >= 2:
                    blocks[f"{prefix}.{key}".removeprefix(".")] = len(blocks) + 1
    if not blocks:
        raise ValueError(
            "layer_decay needs repeated blocks (two or more of one class, made of submodules, in a ModuleList, "
            f"Sequential or numbered ModuleDict), and {type(model).__name__} has none: leave layer_decay out"
        )
    return blocks


def _layers(model: nn.Module, names: Iterable[str]) -> Iterator[int]:
    """The depth of each parameter; between two stacks it is the depth of the block before."""
    blocks, reached = _blocks(model), 0
    for name in names:
        parents = accumulate(name.split("."), "{}.{}".format)
        block = next((blocks[parent] for parent in parents if parent in blocks), 0)
        reached = block or reached
        yield block or (reached if reached < len(blocks) else reached + 1)


def _placements(model: nn.Module, no_decay: Iterable[str], by_layer: bool) -> Iterator[Placement]:
    """Decide on each parameter once. A shared parameter decays only if it does in every role."""
    patterns, declared = _strings("no_decay", no_decay), tuple(_declared(model))
    roles: dict[int, list[_Role]] = {}
    for role in _roles(model):
        roles.setdefault(id(role.param), []).append(role)
    names = {name for shared in roles.values() for role in shared for name in (role.name, role.alias)}
    for pattern in patterns:
        if pattern not in NO_DECAY_NAMES and not any(_matches(name, pattern) for name in names):
            raise ValueError(
                f"no_decay pattern {pattern!r} matches no parameter of {type(model).__name__}: without a dot it is "
                "compared with the last component of the name; write 'head.*' for everything under a module"
            )
    layers = _layers(model, [shared[0].name for shared in roles.values()]) if by_layer else repeat(0)
    for (first, *others), layer in zip(roles.values(), layers, strict=False):
        why = next(filter(None, (_why_no_decay(role, patterns, declared) for role in (first, *others))), None)
        reason = why or f"decayed: {' '.join(first.describe())}"
        if others:
            reason += f", shared with {', '.join(role.name for role in others)}"
        if not first.param.requires_grad:
            reason = "frozen: left out"
        yield Placement(first.name, first.param, why is None, reason, layer)


def _check(model: Any, weight_decay: Any, lr: Any, layer_decay: Any) -> None:
    """Raise on arguments of `param_groups` that are out of range or cannot be used."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}: its layers decide")
    if not 0 <= number(weight_decay) < math.inf:
        raise ValueError(f"weight_decay={weight_decay!r} must be a finite number >= 0")
    if lr is not None and not 0 <= number(lr) < math.inf:
        raise ValueError(f"lr={lr!r} must be a finite number >= 0: give a tensor to the optimizer and leave lr out")
    if layer_decay is not None and not 0 < number(layer_decay) <= 1:
        raise ValueError(f"layer_decay={layer_decay!r} must lie in (0, 1]")
    if layer_decay is not None and lr is None:
        raise ValueError(f"layer_decay={layer_decay!r} scales the learning rate of every group: give lr too")
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise ValueError(
            "FullyShardedDataParallel flattens every parameter to one dimension, which hides the matrices: make the "
            "groups before wrapping (use_orig_params=True keeps the parameters), or shard with fully_shard"
        )
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        raise ValueError(f"{lazy[0]} of a lazy module has no shape yet: run one forward pass first")


def param_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    no_decay: Iterable[str] = NO_DECAY_NAMES,
    layer_decay: float | None = None,
) -> ParamGroups:
    """Split a model's parameters into groups with and without weight decay, for any torch optimizer.

    Weight decay does not apply to:

    - parameters that `no_weight_decay` of the model or of a submodule names (timm's convention, relative to that
      module), and parameters with a true attribute `_no_weight_decay`
    - names in `no_decay`
    - normalisation layers and embeddings, by the type of the module
    - biases, and magnitudes of weight norm
    - parameters with at most one dimension, or with three and more of which at most one is larger than 1, except for
      the latter in linear, convolutional and recurrent layers

    A parameter shared by several modules appears once, under its first name. It decays only if it does in every role,
    so that an embedding tied to the output layer does not. Frozen parameters are left out: after unfreezing them, make
    the groups again or call `add_param_group`. Make new groups for every optimizer, because torch writes into them.

    Args:
        model: the module, before it is wrapped in `FullyShardedDataParallel`.
        weight_decay: the weight decay of the decayed groups, in the optimizer's own convention. The others get 0.
        lr: the learning rate of every group; None leaves it to the optimizer.
        no_decay: case-sensitive globs. A glob without a dot is compared with the last component of the name
            ("cls_token"), one with a dot with the name from any component on ("head.*" matches everything in a head).
            To extend the default, give `(*NO_DECAY_NAMES, "mine")`. A pattern of yours that matches nothing raises.
        layer_decay: the factor between the lr of neighbouring layers: a layer gets lr * layer_decay ** (last - layer).
            Layers 1, 2, ... are the repeated blocks of the outermost stacks (the stages, where a model has stages of
            blocks). Layer 0 has the parameters before them, the last layer those after. timm's `group_matcher` is not
            read.

    Returns:
        Groups: dicts of `params` as (name, parameter) pairs, `weight_decay` and, if given, `lr`. They are in the order
        of the layers, decayed ones first, and never empty. `table()` shows every parameter, its group and the reason.

    Raises:
        TypeError: `model` is not a module, or `no_decay` is a bare string.
        ValueError: a value is out of range, a pattern matches nothing, no parameter is trainable, one is lazy, or
            `layer_decay` comes without `lr` or repeated blocks.

    Example:
        >>> for group in param_groups(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), 0.1):
        ...     print(group["weight_decay"], [name for name, _ in group["params"]])
        0.1 ['0.weight']
        0.0 ['0.bias', '1.weight', '1.bias']
    """
    _check(model, weight_decay, lr, layer_decay)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    placements = tuple(_placements(model, no_decay, layer_decay is not None))
    last = max((place.layer for place in placements), default=0)
    for name, param, decays, _, layer in sorted(placements, key=lambda place: (place.layer, not place.decays)):
        if param.requires_grad:
            settings = {"weight_decay": float(weight_decay) if decays else 0.0}
            if lr is not None:
                settings["lr"] = layer_lr(float(lr), float(layer_decay or 1.0), last - layer)
            groups.setdefault((layer, decays), {"params": [], **settings})["params"].append((name, param))
    if not groups:
        raise ValueError(f"{type(model).__name__} has no trainable parameter ({len(placements)} frozen)")
    result = ParamGroups(groups.values())
    result.placements = placements
    return result
