"""The training run: fixed seed, fixed number of steps, checkpoints that a run killed half-way resumes from."""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .corpus import BOOKS
from .network import Matrix, Network
from .shape import SHAPE

SEED = 1811
STEPS = 620
WARMUP = 40
COOLDOWN = 120  # steps of linear decay at the end; until it begins, a run may still be given more STEPS
TOKENS_A_STEP = 4096
# Mostly short windows, which are cheap and varied; every fourth step long ones, for the state to carry far.
WINDOWS = [512, 512, 512, 2048]
CHAT_SHARE = 8  # one row in eight of the short windows is ChatML
MATRIX_RATE, OTHER_RATE = 4e-3, 3e-3
WEIGHT_DECAY = 0.1
DROPOUT = 0.1
MTP_WEIGHT = 0.3
CHECKPOINT_EVERY = 100


class Windows:
    """Windows of one length over a token stream: each pass tiles the stream from a new phase, in a new order."""

    def __init__(self, ids, length, seed):
        self.ids, self.length = torch.from_numpy(ids.astype(np.int64)), length
        self.rng = np.random.default_rng([seed, length])
        self.order = []

    def next(self):
        if not self.order:
            starts = np.arange(self.rng.integers(self.length), len(self.ids) - self.length, self.length)
            self.order = self.rng.permutation(starts).tolist()
        start = self.order.pop()
        return self.ids[start : start + self.length]


class Batches:
    def __init__(self, work: Path):
        read = lambda name: np.fromfile(work / f"{name}.ids", np.int32)
        self.prose = {length: Windows(read("train.txt"), length, SEED) for length in sorted(set(WINDOWS))}
        self.chat = Windows(read("chat.txt"), WINDOWS[0], SEED + 1)

    def next(self, step):
        length = WINDOWS[step % len(WINDOWS)]
        rows = TOKENS_A_STEP // length
        chats = rows // CHAT_SHARE
        return torch.stack(
            [self.chat.next() for _ in range(chats)] + [self.prose[length].next() for _ in range(rows - chats)]
        )


def losses(network, ids):
    hidden, guess = network(ids)
    main = F.cross_entropy(network.logits(hidden[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    mtp = F.cross_entropy(network.logits(guess[:, :-1]).flatten(0, 1), ids[:, 2:].flatten())
    return main, mtp


def optimizers(network):
    """Muon turns the wide matrices; AdamW everything that is not a map between wide spaces."""
    wide = [m.weight for m in network.modules() if isinstance(m, Matrix) and min(m.weight.shape) > 8]
    known = {id(p) for p in wide}
    rest = [p for p in network.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(wide, lr=MATRIX_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step):
    return min((step + 1) / WARMUP, (STEPS - step) / COOLDOWN, 1.0)


@torch.no_grad()
def held_out_loss(network, work, length=512, windows=2):
    network.eval()
    rows = []
    for book in BOOKS:
        ids = np.fromfile(work / f"{book}.held.ids", np.int32).astype(np.int64)
        rows += [torch.from_numpy(ids[i * length : (i + 1) * length]) for i in range(windows)]
    main, mtp = losses(network, torch.stack(rows))
    network.train()
    return main.item(), mtp.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    network = Network(SHAPE, DROPOUT)
    tuned = optimizers(network)
    batches = Batches(work)
    checkpoint, first = work / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        network.load_state_dict(saved["network"])
        for optimizer, state in zip(tuned, saved["optimizers"]):
            optimizer.load_state_dict(state)
        first = saved["step"]
        torch.set_rng_state(saved["random"])
        for step in range(first):
            batches.next(step)
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {STEPS} steps from {first}", flush=True)

    bases = [[group["lr"] for group in o.param_groups] for o in tuned]
    if first:
        bases = saved["bases"]
    began = time.time()
    for step in range(first, STEPS):
        for optimizer, base in zip(tuned, bases):
            for group, lr in zip(optimizer.param_groups, base):
                group["lr"] = lr * rate(step)
        main_loss, mtp_loss = losses(network, batches.next(step))
        (main_loss + MTP_WEIGHT * mtp_loss).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in tuned:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % 10 == 0:
            speed = (done - first) * TOKENS_A_STEP / (time.time() - began)
            print(f"step {done} main {main_loss.item():.3f} mtp {mtp_loss.item():.3f} {speed:.0f} tok/s", flush=True)
        if done % CHECKPOINT_EVERY == 0 or done == STEPS:
            print("step {} held out: main {:.4f} mtp {:.4f}".format(done, *held_out_loss(network, work)), flush=True)
            saved = {
                "step": done,
                "network": network.state_dict(),
                "optimizers": [o.state_dict() for o in tuned],
                "bases": bases,
                "random": torch.get_rng_state(),
            }
            torch.save(saved, work / "checkpoint.tmp")
            os.replace(work / "checkpoint.tmp", checkpoint)


if __name__ == "__main__":
    main()
