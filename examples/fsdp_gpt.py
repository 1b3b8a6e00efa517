"""A small GPT under FSDP2 on two processes, clipped and averaged over all shards: python examples/fsdp_gpt.py"""

import os
from pydoc_data.topics import topics  # half a million letters of English, part of Python
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from adamas.torch import AdamW, param_groups

PROCESSES, STEPS, BATCH, LENGTH, WIDTH = 2, 60, 16, 32, 64
text = torch.tensor(list("".join(topics.values()).encode("ascii", "replace")))
train, test = text[:400_000], text[400_000:440_000]


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.letter, self.place = nn.Embedding(128, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(WIDTH, 128)

    def forward(self, letters):
        x, mask = letters[:, :-1], nn.Transformer.generate_square_subsequent_mask(LENGTH)
        x = self.block(self.letter(x) + self.place.weight, src_mask=mask, is_causal=True)
        return cross_entropy(self.head(x).flatten(0, 1), letters[:, 1:].flatten())


def batch(data, size, random):
    return data[torch.randint(len(data) - LENGTH, (size, 1), generator=random) + torch.arange(LENGTH + 1)]


def work(rank, meeting_point):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)  # the same weights in each process
    model = GPT()
    fully_shard(model)
    optimizer = AdamW(param_groups(model, 0.1), lr=1e-2, max_norm=1.0, ema_decay=0.9)  # of the shards: after sharding
    random = torch.Generator().manual_seed(rank)
    for _ in range(STEPS):
        model(batch(train, BATCH, random)).backward()
        optimizer.step(zero_grad=True)
    with torch.no_grad(), optimizer.averaged():
        loss = model(batch(test, 256, torch.Generator().manual_seed(0)))
    print(f"process {rank}: gradient norm {optimizer.grad_norm:.2f}, test loss {loss:.3f}", flush=True)
    dist.barrier()
    os._exit(0)  # torch sometimes aborts while it unloads, over threads of gloo's


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (f"{folder}/meeting",), PROCESSES)
