"""Diffusion as a task: what is drawn for each sample, and that nothing else decides about its loss."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from nirvana.data import flips, open_data, order
from nirvana.diffusion import sample_rng
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.recipes.task import DiffusionTask, PictureBatches, Pictures
from nirvana.train.task import Position

NAMES = tuple("0123456789")


def made(name: str = "flow") -> tuple[DiffusionTask, Recipe]:
    recipe = RECIPES[name](Facts(8, 1, NAMES))
    plan = plan_of(dataclasses.replace(recipe, batch=8), 64, Order("digits"))
    task = make_task(recipe, recipe.model, plan, torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.modules.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.05, generator=rng))
    return task, recipe


def test_the_flow_loss_is_the_velocity_error_of_the_drawn_level_and_noise() -> None:
    task, _ = made()
    batches = PictureBatches(open_data("digits"), 5, flip=False)
    indices = range(16, 24)
    batch = batches.batch(indices)
    loss = task.loss(task.phases[0], batch, Position(5, indices, 16))
    assert loss.per_sample is not None and loss.coordinate is not None
    table = task.parts.conditioner
    for row, index in enumerate(indices):
        rng = sample_rng(5, index, "train")
        u, coin = torch.rand(2, generator=rng)
        eps = torch.randn(1, 8, 8, generator=rng)
        stratum = (index % 8 + float(u)) / 8
        t = 1 / (1 + math.exp(-math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * stratum - 1, dtype=torch.float64)))))
        x0 = batch.x0[row].float() / 127.5 - 1
        x = (1 - t) * x0 + t * eps
        label = 10 if float(coin) < 0.1 else int(batch.labels[row])
        vector = table.embedding.weight[label][None]  # type: ignore[union-attr]
        out = task.parts.denoiser.net(x[None], torch.tensor([1000 * t]), {"vector": vector})
        torch.testing.assert_close(loss.per_sample[row], (out[0] - (eps - x0)).square().mean(), rtol=1e-3, atol=1e-5)
        assert float(loss.coordinate[row]) == pytest.approx(math.log((1 - t) / t), abs=1e-5)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_split_batch_has_the_losses_of_the_whole(name: str) -> None:
    task, _ = made(name)
    batches = PictureBatches(open_data("digits"), 1, flip=True)

    def losses(indices: range) -> torch.Tensor:
        found = task.loss(task.phases[0], batches.batch(indices), Position(1, indices, 8)).per_sample
        assert found is not None
        return found.detach()

    parts = torch.cat([losses(range(8, 11)), losses(range(11, 16))])
    torch.testing.assert_close(losses(range(8, 16)), parts, rtol=1e-4, atol=1e-6)


def test_labels_are_dropped_in_the_stated_share_and_only_then_do_not_matter() -> None:
    task, _ = made()
    batches = PictureBatches(open_data("digits"), 0, flip=False)
    indices = range(400)
    batch = batches.batch(indices)
    other = dataclasses.replace(batch, labels=(batch.labels + 1) % 10)
    position = Position(0, indices, 0)
    with torch.no_grad():
        before = task.loss(task.phases[0], batch, position).per_sample
        after = task.loss(task.phases[0], other, position).per_sample
    assert before is not None and after is not None
    dropped = [float(torch.rand(2, generator=sample_rng(0, i, "train"))[1]) < 0.1 for i in indices]
    assert (before == after).tolist() == dropped
    assert 20 < sum(dropped) < 60


def test_pictures_come_in_the_order_and_with_the_flips_of_their_indices() -> None:
    data = open_data("digits")
    batches = PictureBatches(data, 3, flip=True)
    indices = range(1430, 1450)  # over the end of an epoch
    batch = batches.batch(indices)
    mirrored = flips(3, indices)
    assert mirrored.any() and not mirrored.all()
    for row, chosen in enumerate(order(3, len(data), indices)):
        picture = torch.from_numpy(data.images[chosen].copy()).permute(2, 0, 1)
        assert torch.equal(batch.x0[row], picture.flip(2) if mirrored[row] else picture)
        assert data.labels is not None and batch.labels[row] == data.labels[chosen]
    assert batches.files(indices) == data.files(order(3, len(data), indices).tolist())
    plain = PictureBatches(data, 3, flip=False).batch(indices)
    assert torch.equal(plain.x0[~torch.from_numpy(mirrored)], batch.x0[~torch.from_numpy(mirrored)])


def test_a_batch_enters_the_network_channels_last_without_a_copy() -> None:
    recipe = RECIPES["flow"](Facts(8, 3))
    task = make_task(recipe, recipe.model, plan_of(recipe, 64, Order("digits")), torch.device("cpu"))
    pictures = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    seen: list[torch.Tensor] = []
    network = task.parts.denoiser.net
    network.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    network.stem.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))  # type: ignore[union-attr]
    task.loss(task.phases[0], Pictures(pictures, torch.zeros(4, dtype=torch.int64)), Position(0, range(4), 0))
    entered, at_stem = seen
    assert entered.is_contiguous(memory_format=torch.channels_last)
    assert entered.data_ptr() == at_stem.data_ptr()


def test_the_weights_come_from_the_seed() -> None:
    recipe = RECIPES["flow"](Facts(8, 1, NAMES))

    def weights(seed: int) -> torch.Tensor:
        task = make_task(recipe, recipe.model, plan_of(recipe, 64, Order("digits", seed=seed)), torch.device("cpu"))
        return task.state_dict()["denoiser.net.stem.weight"]

    state = torch.random.get_rng_state()
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.random.get_rng_state(), state)
