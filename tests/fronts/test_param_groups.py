"""`param_groups`: which parameters decay, why, at what lr, and that each trainable one is in exactly one group."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from adamas.torch import param_groups
from adamas.torch.param_groups import NO_DECAY_NAMES, ParamGroups


def named(groups):
    """{(weight decay, lr or None): names}."""
    return {(g["weight_decay"], g.get("lr")): [name for name, _ in g["params"]] for g in groups}


def decayed(groups):
    return {name for g in groups if g["weight_decay"] for name, _ in g["params"]}


def reasons(groups):
    return {place.name: place.reason for place in groups.placements}


def holder(**tensors):
    """A module that owns parameters directly."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, nn.Parameter(tensor))
    return module


class Block(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, 2)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gamma = nn.Parameter(torch.ones(1, 1, dim))


class ViT(nn.Module):
    def __init__(self, dim=8, blocks=3):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, dim))
        self.patch = nn.Conv2d(3, dim, 2)
        self.blocks = nn.ModuleList([Block(dim) for _ in range(blocks)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 3)


class TiedLM(nn.Module):
    def __init__(self, head_first=False):
        super().__init__()
        parts = {"wte": nn.Embedding(7, 4), "lm_head": nn.Linear(4, 7, bias=False)}
        for name in sorted(parts, reverse=not head_first):
            self.add_module(name, parts[name])
        self.lm_head.weight = self.wte.weight


class LlamaRMSNorm(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


def test_mlp():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    groups = param_groups(model, 0.1)
    assert named(groups) == {
        (0.1, None): ["0.weight", "3.weight"],
        (0.0, None): ["0.bias", "1.weight", "1.bias", "3.bias"],
    }
    assert isinstance(groups, list)
    assert all(set(g) == {"params", "weight_decay"} for g in groups)
    assert all(param is model.get_parameter(name) for g in groups for name, param in g["params"])
    assert reasons(groups) == {
        "0.weight": "decayed: Linear weight",
        "0.bias": "bias",
        "1.weight": "normalisation layer (LayerNorm)",
        "1.bias": "normalisation layer (LayerNorm)",
        "3.weight": "decayed: Linear weight",
        "3.bias": "bias",
    }


def test_vit():
    groups = param_groups(ViT(), 0.1)
    per_block = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.0.weight", "mlp.2.weight")
    assert decayed(groups) == {"patch.weight", "head.weight"} | {f"blocks.{i}.{n}" for i in range(3) for n in per_block}
    assert reasons(groups)["pos_embed"] == "name matches *pos_emb*"
    assert reasons(groups)["cls_token"] == "name matches *_token"
    assert reasons(groups)["blocks.1.gamma"] == "name matches gamma"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(3, 4, 3), {"weight"}),
        (nn.ConvTranspose1d(3, 4, 3), {"weight"}),
        (nn.Conv3d(3, 4, 1, bias=False), {"weight"}),
        (nn.Bilinear(2, 3, 4), {"weight"}),
        (nn.PReLU(), set()),
        (nn.PReLU(5), set()),
        (nn.Embedding(5, 4), set()),
        (nn.EmbeddingBag(5, 4), set()),
        (nn.LSTM(3, 4, 2, proj_size=2), {f"weight_{kind}_l{i}" for kind in ("ih", "hh", "hr") for i in (0, 1)}),
        (nn.GRUCell(3, 4), {"weight_ih", "weight_hh"}),
        (nn.MultiheadAttention(8, 2, add_bias_kv=True), {"in_proj_weight", "out_proj.weight"}),
        (nn.MultiheadAttention(8, 2, kdim=4), {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}),
        (nn.LayerNorm((3, 4)), set()),
        (nn.RMSNorm((3, 4)), set()),
        (nn.GroupNorm(2, 4), set()),
        (nn.BatchNorm3d(4), set()),
        (nn.SyncBatchNorm(4), set()),
        (nn.InstanceNorm2d(4, affine=True), set()),
        (LlamaRMSNorm(2, 4), set()),
        (type("LayerNorm2d", (LlamaRMSNorm,), {})(4, 1, 1), set()),
        (type("Scale", (nn.LayerNorm,), {})((3, 4)), set()),
        (nn.Linear(3, 4, dtype=torch.complex64), {"weight"}),
        (holder(probe=torch.ones(1, 1, 4), temperature=torch.ones(3, 1, 1), row=torch.ones(1, 4)), {"row"}),
        (nn.Conv2d(1, 4, 1), {"weight"}),  # 4 x 1 x 1 x 1
        (holder(logit_scale=torch.ones(()), A=torch.ones(2, 3)), {"A"}),
        (
            holder(layer_scale_1=torch.ones(4, 1, 1), expert_biases=torch.ones(2, 3), debias=torch.ones(2, 2)),
            {"debias"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_module_types(module, expected):
    assert decayed(param_groups(module, 0.1)) == expected


@pytest.mark.parametrize(
    ("class_name", "is_norm"),
    [
        *(
            (name, True)
            for name in ("T5LayerNorm", "RMSnorm", "RMSNormGated", "LayerNormalization", "L2Norm", "GroupNorm32")
        ),
        *((name, False) for name in ("NormalFlow", "NormedDense", "Normalizer", "LayerNormLSTMCell", "RMSNormLinear")),
    ],
)
def test_class_names_of_custom_norms(class_name, is_norm):
    module = type(class_name, (nn.Module,), {})()
    module.weight = nn.Parameter(torch.ones(2, 4))
    assert decayed(param_groups(module, 0.1)) == (set() if is_norm else {"weight"})


def test_a_linear_layer_called_norm_is_a_linear_layer():
    assert decayed(param_groups(type("CosineNorm", (nn.Linear,), {})(3, 4), 0.1)) == {"weight"}


def test_only_the_norms_own_parameters_are_exempt():
    model = type("AdaLayerNorm", (nn.Module,), {})()
    model.norm, model.modulation = nn.LayerNorm(4), nn.Linear(4, 8)
    assert decayed(param_groups(model, 0.1)) == {"modulation.weight"}


def test_weight_norm():
    groups = param_groups(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))), 0.1)
    assert reasons(groups) == {
        "0.bias": "bias",
        "0.parametrizations.weight.original0": "weight-norm magnitude",
        "0.parametrizations.weight.original1": "decayed: Linear weight",
    }
    assert decayed(param_groups(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), 0.1)) == {
        "parametrizations.weight.original1"
    }


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_of_old():
    assert decayed(param_groups(nn.utils.weight_norm(nn.Linear(4, 3)), 0.1)) == {"weight_v"}


def test_parametrized_parameters_keep_the_role_of_what_they_replace():
    model = nn.ModuleDict(
        {
            "linear": parametrizations.orthogonal(nn.Linear(4, 4)),
            "emb": parametrizations.spectral_norm(nn.Embedding(5, 4)),
            "stem": nn.Linear(2, 2),
        }
    )
    parametrize.register_parametrization(model["stem"], "bias", nn.Linear(2, 2))
    groups = param_groups(model, 0.1)
    assert reasons(groups)["emb.parametrizations.weight.original"] == "embedding (Embedding)"
    assert reasons(groups)["linear.parametrizations.weight.original"] == "decayed: Linear weight"
    assert reasons(groups)["stem.parametrizations.bias.original"] == "bias"
    assert "stem.parametrizations.bias.0.weight" in decayed(groups)  # the parametrization's own matrix
    groups = param_groups(model, 0.1, no_decay=["linear.weight"])
    assert reasons(groups)["linear.parametrizations.weight.original"] == "name matches linear.weight"
    groups = param_groups(model, 0.1, no_decay=["linear.*.original"])
    assert reasons(groups)["linear.parametrizations.weight.original"] == "name matches linear.*.original"


@pytest.mark.parametrize("head_first", [False, True])
def test_tied_embedding_appears_once_and_does_not_decay(head_first):
    groups = param_groups(TiedLM(head_first), 0.1)
    first, other = ("lm_head.weight", "wte.weight") if head_first else ("wte.weight", "lm_head.weight")
    assert named(groups) == {(0.0, None): [first]}
    assert reasons(groups) == {first: f"embedding (Embedding), shared with {other}"}


def test_shared_module_is_exempt_if_any_of_its_names_is():
    shared = nn.Linear(4, 4, bias=False)
    model = nn.ModuleDict({"a": shared, "b": shared})
    assert decayed(param_groups(model, 0.1)) == {"a.weight"}
    groups = param_groups(model, 0.1, no_decay=["b.weight"])
    assert reasons(groups) == {"a.weight": "name matches b.weight, shared with b.weight"}


@pytest.mark.parametrize("as_method", [True, False])
def test_no_weight_decay_of_model_and_submodule(as_method):
    def declare(module, names):
        module.no_weight_decay = (lambda: names) if as_method else names

    model = nn.ModuleDict({"tower[0]": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "head": nn.Linear(4, 2)})
    declare(model, {"head.weight", "not.there"})
    declare(model["tower[0]"], ["1.*"])
    groups = param_groups(model, 0.1)
    assert decayed(groups) == {"tower[0].0.weight"}
    assert reasons(groups)["head.weight"] == reasons(groups)["tower[0].1.weight"] == "no_weight_decay()"


def test_no_weight_decay_names_whole_names():
    model = nn.Sequential(nn.Linear(4, 4))
    model.no_weight_decay = {"weight"}  # of the model itself, not of its child
    assert decayed(param_groups(model, 0.1)) == {"0.weight"}
    model.no_weight_decay = None
    assert decayed(param_groups(model, 0.1)) == {"0.weight"}
    model.no_weight_decay = "0.weight"
    with pytest.raises(TypeError, match=r"no_weight_decay='0.weight' must be a collection of strings"):
        param_groups(model, 0.1)


def test_marked_parameter():
    model = nn.Linear(4, 4)
    model.weight._no_weight_decay = True
    assert reasons(param_groups(model, 0.1))["weight"] == "marked _no_weight_decay"


def test_name_patterns():
    model = nn.ModuleDict({"head": nn.Sequential(nn.Linear(4, 4)), "ahead": nn.Linear(4, 4), "body": nn.Linear(4, 4)})
    assert decayed(param_groups(model, 0.1, no_decay=["head.*"])) == {"ahead.weight", "body.weight"}
    assert decayed(param_groups(model, 0.1, no_decay=["*head.*"])) == {"body.weight"}
    assert decayed(param_groups(model, 0.1, no_decay=(p for p in ["weight"]))) == set()
    assert decayed(param_groups(model, 0.1, no_decay=(*NO_DECAY_NAMES, "0.weight"))) == {"ahead.weight", "body.weight"}
    with pytest.raises(ValueError, match=r"no_decay pattern 'head' matches no parameter of ModuleDict.*'head\.\*'"):
        param_groups(model, 0.1, no_decay=["head"])
    with pytest.raises(ValueError, match="'Weight' matches no parameter"):
        param_groups(model, 0.1, no_decay=["Weight"])


@pytest.mark.parametrize(
    "name",
    [
        *(
            "pos_embed",
            "pos_embedding",
            "position_embeddings",
            "positional_embedding",
            "absolute_pos_embed",
            "pos_embed1",
        ),
        *("cls_token", "class_token", "reg_token", "register_tokens", "dist_token", "distillation_token", "mask_token"),
        *("relative_position_bias_table", "rel_pos_h", "layer_scale", "logit_scale", "gamma", "beta", "A_log"),
    ],
)
def test_default_names(name):
    model = nn.ModuleDict({"encoder": holder(**{name: torch.ones(3, 4), "weight": torch.ones(3, 4)})})
    assert decayed(param_groups(model, 0.1)) == {"encoder.weight"}
    assert decayed(param_groups(nn.ModuleDict({name: nn.Linear(3, 4)}), 0.1)) == {f"{name}.weight"}  # not a module's


def test_user_names_replace_the_defaults():
    assert decayed(param_groups(holder(pos_embed=torch.ones(3, 4)), 0.1, no_decay=())) == {"pos_embed"}


def test_frozen_parameters_are_left_out_and_shown():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    groups = param_groups(model, 0.1)
    assert named(groups) == {(0.1, None): ["1.weight"], (0.0, None): ["1.bias"]}
    assert reasons(groups)["0.weight"] == "frozen: left out"
    assert next(iter(groups.table().columns[2].cells)).plain == "-"


def test_empty_groups_are_not_returned():
    assert len(param_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1
    assert len(param_groups(nn.LayerNorm(2), 0.1)) == 1
    assert len(param_groups(nn.Linear(2, 2), 0.0)) == 2  # a schedule may raise the decay of one


def test_layer_decay_of_a_vit():
    groups = param_groups(ViT(), 0.1, lr=1.0, layer_decay=0.5)
    lrs = {name: g["lr"] for g in groups for name, _ in g["params"]}
    assert {lrs[name] for name in ("cls_token", "pos_embed", "patch.weight", "patch.bias")} == {0.5**4}
    for i in range(3):
        assert {lr for name, lr in lrs.items() if name.startswith(f"blocks.{i}.")} == {0.5 ** (3 - i)}
    assert {lrs[name] for name in ("norm.weight", "head.weight", "head.bias")} == {1.0}
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [
        (0.5**i, wd) for i in (4, 3, 2, 1, 0) for wd in (0.1, 0.0)
    ]


def layers(model):
    return {place.name: place.layer for place in param_groups(model, 0.1, lr=1.0, layer_decay=0.5).placements}


@pytest.mark.parametrize(
    "stack",
    [
        nn.ModuleList,
        lambda blocks: nn.Sequential(*blocks),
        lambda blocks: nn.Sequential(OrderedDict((f"block_{i}", block) for i, block in enumerate(blocks))),
        lambda blocks: nn.ModuleDict({str(i): block for i, block in enumerate(blocks)}),
    ],
)
def test_layer_decay_finds_stacks(stack):
    model = nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))})
    model["encoder"] = nn.ModuleDict({"layer": stack([Block(), *(nn.Sequential(nn.ReLU()) for _ in "ab"), Block()])})
    model["head"] = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    got = layers(model)
    assert {got[name] for name in got if name.startswith("stem")} == {0}
    in_blocks = [layer for name, layer in got.items() if name.startswith("encoder") and name.endswith("norm.weight")]
    assert in_blocks == [1, 2]
    assert {got[name] for name in got if name.startswith("head")} == {3}


def test_layer_decay_numbers_on_over_several_stacks():
    def stage():
        return nn.Sequential(Block(), Block())

    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "layer1": stage(), "mid": nn.LayerNorm(8), "layer2": stage()})
    got = layers(model)
    assert [got[f"layer{s}.{b}.gamma"] for s in (1, 2) for b in (0, 1)] == [1, 2, 3, 4]
    assert (got["stem.weight"], got["mid.weight"]) == (0, 2)


def test_layer_decay_looks_at_outermost_stacks_of_repeated_blocks():
    experts = nn.ModuleDict({"experts": nn.ModuleList([Block(), Block()]), "proj": nn.Linear(2, 2)})
    encoder = nn.Sequential(nn.Linear(2, 2), copy.deepcopy(experts), experts, nn.LayerNorm(2))
    # the model is a Sequential itself, of two different modules: no repetition
    got = layers(nn.Sequential(nn.ModuleDict({"layers": encoder, "again": encoder}), nn.Sequential(nn.Linear(2, 2))))
    assert (got["0.layers.0.weight"], got["0.layers.3.weight"], got["1.0.weight"]) == (0, 3, 3)
    assert {layer for name, layer in got.items() if name.startswith("0.layers.2.")} == {2}


def test_layer_decay_of_a_bare_stack_gives_its_last_block_the_full_lr():
    groups = param_groups(nn.Sequential(Block(), Block()), 0.1, lr=1.0, layer_decay=0.5)
    assert [g["lr"] for g in groups] == [0.5, 0.5, 1.0, 1.0]


def test_layer_decay_counts_frozen_layers():
    model = ViT()
    model.head.requires_grad_(False)
    model.norm.requires_grad_(False)
    assert max(g["lr"] for g in param_groups(model, 0.1, lr=1.0, layer_decay=0.5)) == 0.5


def test_lr_without_layer_decay():
    assert [g["lr"] for g in param_groups(nn.Linear(2, 2), 0.1, lr=3e-4)] == [3e-4, 3e-4]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight_decay": -1}, ValueError, "weight_decay=-1 must be a finite number >= 0"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay=nan must be"),
        ({"weight_decay": True}, ValueError, "weight_decay=True must be"),
        ({"weight_decay": "0.1"}, ValueError, "weight_decay='0.1' must be"),
        ({"lr": -0.5}, ValueError, "lr=-0.5 must be a finite number >= 0"),
        ({"lr": torch.tensor(0.5)}, ValueError, "give a tensor to the optimizer"),
        ({"lr": 1.0, "layer_decay": 0}, ValueError, r"layer_decay=0 must lie in \(0, 1\]"),
        ({"lr": 1.0, "layer_decay": 1.5}, ValueError, r"layer_decay=1.5 must lie in \(0, 1\]"),
        ({"layer_decay": 0.5}, ValueError, "layer_decay=0.5 scales the learning rate of every group: give lr too"),
        ({"lr": 1.0, "layer_decay": 0.5}, ValueError, "layer_decay needs repeated blocks .* Linear has none"),
        ({"no_decay": "bias"}, TypeError, r"no_decay='bias' must be a collection of strings: write \('bias',\)"),
        ({"no_decay": 3}, TypeError, "no_decay=3 must be a collection of strings"),
        ({"model": [torch.ones(2)]}, TypeError, "model must be a torch.nn.Module, not list"),
        ({"model": nn.Linear(2, 2).parameters()}, TypeError, "model must be a torch.nn.Module, not generator"),
        ({"model": nn.ReLU()}, ValueError, r"ReLU has no trainable parameter \(0 frozen\)"),
        ({"model": nn.Linear(2, 2).requires_grad_(False)}, ValueError, r"no trainable parameter \(2 frozen\)"),
        (
            {"model": type("FullyShardedDataParallel", (nn.Linear,), {})(2, 2)},
            ValueError,
            "flattens every parameter.*before wrapping",
        ),
    ],
)
def test_errors(change, error, message):
    arguments = {"model": nn.Linear(2, 2), "weight_decay": 0.1} | change
    with pytest.raises(error, match=message):
        param_groups(**arguments)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_parameters():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"0\.weight of a lazy module has no shape yet: run one forward pass"):
        param_groups(model, 0.1)
    model(torch.ones(1, 2))
    assert decayed(param_groups(model, 0.1)) == {"0.weight"}


def test_table_has_a_row_for_every_parameter():
    model = ViT()
    groups = param_groups(model, 0.05, lr=1e-3, layer_decay=0.5)
    rows = list(zip(*([cell.plain for cell in column.cells] for column in groups.table().columns), strict=True))
    assert [row[0] for row in rows] == [name for name, _ in model.named_parameters()]
    assert rows[0] == ("cls_token", "1 x 1 x 8", "1", "0", "6.25e-05", "name matches *_token")
    assert rows[2] == ("patch.weight", "8 x 3 x 2 x 2", "0", "0.05", "6.25e-05", "decayed: Conv2d weight")


def test_table_follows_the_optimizer():
    groups = param_groups(nn.Linear(2, 2), 0.1)
    opt = torch.optim.AdamW(groups)
    opt.param_groups[0]["lr"] = 0.25
    columns = [[cell.plain for cell in column.cells] for column in groups.table().columns]
    assert columns[2] == ["0", "1"]
    assert columns[4] == ["0.25", "0.001"]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda groups: pickle.loads(pickle.dumps(groups))])
def test_groups_can_be_copied(clone):
    groups = clone(param_groups(nn.Linear(2, 2), 0.1))
    assert isinstance(groups, ParamGroups)
    assert [cell.plain for cell in groups.table().columns[2].cells] == ["0", "1"]


def optimizers():
    try:
        from adamas.torch import AdamW
    except ImportError:
        return [torch.optim.AdamW]
    return [torch.optim.AdamW, AdamW]


@pytest.mark.parametrize("optimizer", optimizers(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_optimizers_take_the_groups(optimizer):
    model = ViT()
    opt = optimizer(param_groups(model, 0.1, lr=0.5, layer_decay=0.5), lr=1e-3)
    state = opt.state_dict()["param_groups"]
    assert sorted(name for g in state for name in g["param_names"]) == sorted(
        name for name, _ in model.named_parameters()
    )
    assert [(g["weight_decay"], g["lr"]) for g in state[:3]] == [(0.1, 0.5**5), (0.0, 0.5**5), (0.1, 0.5**4)]
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    opt.step()
    moved = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert moved == decayed(param_groups(model, 0.1))  # at zero gradient, decay alone moves a parameter


LEAVES = (
    lambda: nn.Linear(2, 3),
    lambda: nn.LayerNorm(3),
    lambda: nn.Embedding(3, 2),
    lambda: nn.Conv1d(2, 2, 1),
    lambda: nn.LSTM(2, 2),
    lambda: nn.MultiheadAttention(2, 1, add_bias_kv=True),
    lambda: nn.PReLU(),
    lambda: nn.ReLU(),
    lambda: LlamaRMSNorm(2),
    lambda: parametrizations.weight_norm(nn.Linear(2, 2)),
    lambda: holder(cls_token=torch.ones(1, 1, 2), weight=torch.ones(2, 2), scale=torch.ones(())),
)
CONTAINERS = (
    lambda children: nn.Sequential(*children),
    nn.ModuleList,
    lambda children: nn.ModuleDict({f"part{i}": child for i, child in enumerate(children)}),
    lambda children: nn.Sequential(*children, *children),  # every child twice
)
TREES = st.recursive(
    st.sampled_from(LEAVES).map(lambda make: make()),
    lambda children: st.builds(
        lambda make, parts: make(parts), st.sampled_from(CONTAINERS), st.lists(children, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(TREES, min_size=1, max_size=3), st.data())
def test_every_trainable_parameter_is_in_exactly_one_group(trees, data):
    model = nn.Sequential(nn.Linear(2, 2), *trees)
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    for module in linears[1:]:
        if data.draw(st.booleans(), "tie"):
            module.bias = linears[0].bias
    for param in list(model.parameters())[1:]:
        param.requires_grad_(data.draw(st.booleans(), "trainable"))
    groups = param_groups(model, 0.1)
    trainable = {name: param for name, param in model.named_parameters() if param.requires_grad}
    entries = [entry for g in groups for entry in g["params"]]
    assert len(entries) == len(trainable)
    assert all(trainable[name] is param for name, param in entries)
    assert all(g["params"] for g in groups)
    assert [place.name for place in groups.placements] == [name for name, _ in model.named_parameters()]
    assert {place.name for place in groups.placements if place.decays and place.param.requires_grad} == decayed(groups)
    torch.optim.AdamW(groups)
