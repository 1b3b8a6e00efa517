"""A small GPT under FSDP2 on two processes: the norm is clipped and the weights are averaged over all shards.

python examples/fsdp_gpt.py
"""

import os
import tempfile
from pydoc_data.topics import topics  # half a million letters of English, part of Python

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from adamas.torch import AdamW, param_groups

PROCESSES, STEPS, BATCH, LENGTH, WIDTH = 2, 150, 16, 32, 64
text = torch.tensor(list("".join(topics.values()).encode("ascii", "replace")))
train, test = text[:400_000], text[400_000:440_000]


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.letter, self.place = nn.Embedding(128, WIDTH), nn.Embedding(LENGTH, WIDTH)
        block = dict(dim_feedforward=4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 4, **block) for _ in range(2))
        self.head = nn.Linear(WIDTH, 128)

    def forward(self, letters):
        x, mask = self.letter(letters) + self.place.weight, nn.Transformer.generate_square_subsequent_mask(LENGTH)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(x)


def loss_of(model, data, count, random):
    starts = torch.randint(len(data) - LENGTH - 1, (count, 1), generator=random)
    letters = data[starts + torch.arange(LENGTH + 1)]
    return cross_entropy(model(letters[:, :-1]).flatten(0, 1), letters[:, 1:].flatten())


def work(rank, meeting_point):
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)  # the same weights in each process
    model = GPT()
    for part in (*model.blocks, model):
        fully_shard(part)
    optimizer = AdamW(param_groups(model, 0.1), lr=5e-3, max_norm=1.0, ema_decay=0.95)  # after sharding
    random = torch.Generator().manual_seed(rank)  # other batches in each process
    for _ in range(STEPS):
        loss_of(model, train, BATCH, random).backward()
        optimizer.step(zero_grad=True)
    with torch.no_grad(), optimizer.averaged():
        loss = loss_of(model, test, 256, torch.Generator().manual_seed(0))
    if rank == 0:
        print(f"{optimizer.state_bytes():,} bytes of state in this process; test loss {loss:.3f}", flush=True)
    dist.barrier()
    os._exit(0)  # torch sometimes aborts while it unloads, over threads of gloo's


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (f"{folder}/meeting",), PROCESSES)
