"""A transformer with low-rank warps and dict inputs, learnt online (Algorithm 1) with clipping and a schedule."""

import torch
import torch.nn.functional as F
from torch import nn

import leapwarp

torch.manual_seed(0)
WORDS, WIDTH = 11, 16


class LowRank(nn.Module):
    """h + B A h: a warp of few parameters, which begins as the identity."""

    def __init__(self, width, rank):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, h):
        return h + self.up(self.down(h))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {"body": nn.TransformerEncoderLayer(WIDTH, 2, 32, 0.0, batch_first=True), "warp": LowRank(WIDTH, 2)}
            )
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens, mask):
        h = self.embed(tokens)
        for layer in self.layers:
            h = layer["warp"](layer["body"](h, src_key_padding_mask=mask))
        return self.head(h)


net = Reader()


def loss_of(batch):
    """The word that follows under the task's rule. Padding has the label -100, which the loss ignores."""
    outputs = net(batch["tokens"], batch["mask"])
    return F.cross_entropy(outputs.flatten(0, 1), batch["next"].flatten(), ignore_index=-100)


def rule():
    """A task: each word is followed by the one `step` after it."""
    step = int(torch.randint(1, 4, ()))

    def batch():
        tokens = torch.randint(WORDS, (8, 6))
        mask = torch.arange(6) >= torch.randint(3, 7, (8, 1))
        return {"tokens": tokens, "mask": mask, "next": ((tokens + step) % WORDS).masked_fill(mask, -100)}

    return batch


meta = leapwarp.WarpGrad(net, loss_of, warp=[layer["warp"] for layer in net.layers], inner=0.1)
print(meta.groups)
outer = torch.optim.AdamW(
    [{"params": meta.initial_parameters(), "lr": 3e-3}, {"params": meta.warp_parameters(), "lr": 1e-2}]
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(outer, 10)
for meta_step in range(10):
    for _ in range(3):
        batch = rule()
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for _ in range(4):
                inner.zero_grad()
                task.backward(loss_of(batch()), meta_batch=batch())
                nn.utils.clip_grad_norm_(meta.task_parameters(), 1.0)
                inner.step()
            task.finish(loss_of(batch()))
    seen = meta.backward()
    nn.utils.clip_grad_norm_(meta.parameters(), 10.0)
    outer.step()
    schedule.step()
    if meta_step % 3 == 0:
        print(f"meta-step {meta_step}: loss {seen['loss']:.3f}, of the warps {seen['warp_loss']:.3f}")
