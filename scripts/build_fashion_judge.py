"""Train the Fashion-MNIST judge anew from the full set and write its weights (about ten minutes of one core).

    python scripts/build_fashion_judge.py [--epochs N] [--out FILE]

Needs the full set: `apt-get install dataset-fashion-mnist`, or $NIRVANA_DATA with its four IDX .gz files in
`fashion-mnist/`. The same machine and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from nirvana.data import open_data
from nirvana.evaluate.judge import FashionJudge, JudgeNetwork, standardise
from nirvana.files import write_bytes

OUT = Path(__file__).parents[1] / "src/nirvana/evaluate/weights/fashion_judge.safetensors"
BATCH = 128
PEAK_RATE = 3e-3
WARMUP = 0.1


def augment(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Every picture moved by up to two pixels and mirrored half the time: (B, 28, 28) bytes to the same."""
    count, side = len(pixels), pixels.shape[-1]
    padded = functional.pad(pixels, (2, 2, 2, 2))
    down, right = torch.randint(0, 5, (2, count, 1), generator=rng)
    rows, columns = down + torch.arange(side), right + torch.arange(side)
    mirrored = torch.rand(count, 1, generator=rng) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def rate(done: float) -> float:
    """The learning rate after the fraction `done` of the training: a linear warm-up, then half a cosine to zero."""
    if done < WARMUP:
        return PEAK_RATE * done / WARMUP
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))


def train(pixels: Tensor, labels: Tensor, epochs: int) -> JudgeNetwork:
    """The network after `epochs` passes, in evaluation mode."""
    torch.manual_seed(0)  # initial weights and dropout draw from the global generator
    rng = torch.Generator().manual_seed(1)
    network = JudgeNetwork()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # missing from torch's types
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.02, fused=True)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    steps = len(pixels) // BATCH
    for epoch in range(epochs):
        start, total = time.process_time(), 0.0
        order = torch.randperm(len(pixels), generator=rng)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate((epoch * steps + step + 1) / (epochs * steps))
            chosen = order[step * BATCH : (step + 1) * BATCH]
            x = standardise(augment(pixels[chosen], rng)).contiguous(memory_format=torch.channels_last)
            error = loss(network(x), labels[chosen])
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            total += error.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {time.process_time() - start:.0f} s", flush=True)
    return network.eval()


def pack(network: JudgeNetwork) -> bytes:
    """The weights as safetensors; what is float32 goes in 16 bits."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    return save(tensors)


def main() -> None:
    """Train, write, load what was written, and count its right answers on the test pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training, test = open_data("fashion-mnist"), open_data("fashion-mnist:test")
    if training.manifest.kind != "full" or training.labels is None or test.labels is None:
        sys.exit("the full set is not here: apt-get install dataset-fashion-mnist")
    pixels, labels = torch.from_numpy(training.images[..., 0].copy()), torch.from_numpy(training.labels)
    data = pack(train(pixels, labels, options.epochs))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, data)
    found, _ = FashionJudge.load(options.out).classify(test.images)
    print(f"{options.out}: {len(data):,} bytes, test accuracy {np.mean(found == test.labels):.4f}")


if __name__ == "__main__":
    main()
