"""GAN and VAE as tasks: what is drawn for each sample, who learns in which phase, and that a kill changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import softplus

from nirvana import load
from nirvana.data import open_data
from nirvana.diffusion import sample_rng
from nirvana.errors import Refused
from nirvana.recipes import planner, recipe
from nirvana.recipes.image import prepare
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts
from nirvana.recipes.rehearsal import needed
from nirvana.recipes.task import PictureBatches, PictureTask
from nirvana.train.checkpoint import load_weights
from nirvana.train.plan import TrainPlan
from nirvana.train.task import Position
from own_process import report_of
from tiny_families import DIGITS, FAMILIES, made_task

PLAN = TrainPlan(images=64, batch=8)


def normal(index: int, phase: str) -> torch.Tensor:
    return torch.randn(5, generator=sample_rng(5, index, f"train/{phase}"))


def test_each_player_is_scored_on_the_pictures_of_its_indices() -> None:
    task = made_task("gan", PLAN)
    indices = range(16, 20)
    batch = PictureBatches(open_data("digits"), 5, flip=False).batch(indices)
    found = {phase.name: task.loss(phase, batch, Position(5, indices, 16)) for phase in task.phases}
    parts = task.parts
    for row, index in enumerate(indices):
        x0 = (batch.x0[row].float() / 127.5 - 1)[None]
        label = int(batch.labels[row])
        told, vector = parts.conditioner.embedding.weight[label][None], parts.critic_conditioner.embedding.weight[label]
        drawn = {phase: parts.decoder(normal(index, phase)[None], told) for phase in found}
        real = parts.critic(x0, vector[None])
        gap = real - parts.critic(drawn["generator"], vector[None])
        torch.testing.assert_close(found["generator"].per_sample[row : row + 1], softplus(gap))
        penalties = 0.0
        for x in (x0, drawn["critic"]):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(parts.critic(x, vector[None]).sum(), x)
            penalties += float(gradient.square().sum())
        pair = softplus(parts.critic(drawn["critic"], vector[None]) - real)
        expected = float(pair.detach()) + 0.5 * penalties
        assert float(found["critic"].per_sample[row].detach()) == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(normal(16, "critic"), normal(16, "generator"))


def test_a_vae_is_scored_on_the_pictures_of_its_indices() -> None:
    task = made_task("vae", PLAN)
    indices = range(16, 20)
    batch = PictureBatches(open_data("digits"), 5, flip=False).batch(indices)
    loss = task.loss(task.phases[0], batch, Position(5, indices, 16))
    parts, log_sigma = task.parts, task.parts.scale()
    for row, index in enumerate(indices):
        x0 = (batch.x0[row].float() / 127.5 - 1)[None]
        told = parts.conditioner.embedding.weight[int(batch.labels[row])][None]
        mean, log_var = parts.encoder(x0, told).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_var) * normal(index, "vae")
        density = torch.distributions.Normal(parts.decoder(z, told), log_sigma.exp()).log_prob(x0).sum()
        q = torch.distributions.Normal(mean, torch.exp(0.5 * log_var))
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros(5), 1.0)).sum()
        bits = (kl - density) / (64 * torch.log(torch.tensor(2.0))) + torch.log2(torch.tensor(127.5))
        torch.testing.assert_close(loss.per_sample[row], bits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.total, loss.terms["reconstruction"] + loss.terms["kl"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_split_batch_has_the_losses_of_the_whole(family: str) -> None:
    task = made_task(family, PLAN)
    batches = PictureBatches(open_data("digits"), 1, flip=True)
    for phase in task.phases:

        def losses(indices: range, phase: object = phase) -> torch.Tensor:
            return task.loss(phase, batches.batch(indices), Position(1, indices, 8)).per_sample.detach()

        parts = torch.cat([losses(range(8, 11)), losses(range(11, 16))])
        torch.testing.assert_close(losses(range(8, 16)), parts, rtol=1e-4, atol=1e-6)


def test_every_weight_learns_in_one_phase_and_the_critic_is_not_averaged() -> None:
    task = made_task("gan", PLAN)
    critic, generator = (set(phase.parameters) for phase in task.phases)
    assert not critic & generator and critic | generator == set(dict(task.modules.named_parameters()))
    assert {name.split(".")[0] for name in critic} == {"critic", "critic_conditioner"}
    assert set(task.ema_parameters()) == generator
    batch = PictureBatches(open_data("digits"), 5, flip=False).batch(range(8))
    for phase, own in zip(task.phases, (critic, generator), strict=True):
        task.modules.zero_grad()
        task.loss(phase, batch, Position(5, range(8), 0)).total.backward(inputs=list(phase.parameters.values()))
        moved = {name for name, tensor in task.modules.named_parameters() if tensor.grad is not None}
        assert (
            moved <= own and len(moved) >= len(own) - 1
        )  # the null class is a row of a table, not a tensor of its own
    assert isinstance(task, PictureTask)


def test_a_vae_averages_all_it_has() -> None:
    task = made_task("vae", PLAN)
    assert set(task.ema_parameters()) == set(task.phases[0].parameters) == set(dict(task.modules.named_parameters()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_recipe_makes_a_model_that_can_be_planned(family: str, names: tuple[str, ...]) -> None:
    made = RECIPES[family](Facts(28, 1, names))
    plan = plan_of(made, 1000, Order("digits"))
    assert (plan.batch, plan.lr) == (made.batch, made.lr)
    assert made.model["family"] == family and made.model["shape"] == [1, 28, 28]
    assert made.model["network"]["vector_dim"] == (64 if names else 0)  # type: ignore[index, call-overload]


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    report = report_of("recipes.older_worker", str(tmp_path))
    assert set(report) == set(FAMILIES)
    for family, found in report.items():
        assert len(found) >= 10
        assert {name: problems for name, problems in found.items() if problems} == {}, family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_is_planned_in_minutes_and_draws_on_its_way(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "WIDTHS", ((4, 0),))
    monkeypatch.setattr(planner, "LONG", 0.0)
    monkeypatch.setattr(recipe, "LATENT", 6)
    training = prepare(Order("digits", minutes=0.1, recipe=family), tmp_path / "run")
    assert training.forecast is not None and training.forecast.memory > 0
    assert training.parameters == sum(p.numel() for p in training.task.modules.parameters())  # type: ignore[attr-defined]
    short = prepare(Order("digits", images=96, recipe=family), tmp_path / "short")
    for _ in short.events():
        pass
    assert len(list((tmp_path / "short" / "samples").glob("*.png"))) >= 2
    model = load(tmp_path / "short", device="cpu")
    assert model.family == family and model.labels == DIGITS
    ema, raw = (load_weights(short.run, which) for which in ("ema", "raw"))
    differ = {name.split(".")[0] for name in ema if not torch.equal(ema[name], raw[name])}
    assert differ == ({"decoder", "conditioner"} | ({"encoder", "scale"} if family == "vae" else set()))


def test_from_a_gan_both_tables_keep_the_rows_of_known_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "LATENT", 6)
    monkeypatch.setattr(planner, "WIDTHS", ((4, 0),))
    rng = np.random.default_rng(0)
    for folder, names in (("a", ("cat", "dog")), ("b", ("dog", "emu"))):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(3):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
                picture.save(tmp_path / folder / name / f"{i}.png")
    parent = prepare(Order(str(tmp_path / "a"), images=32, recipe="gan"), tmp_path / "parent")
    for _ in parent.events():
        pass
    order = Order(str(tmp_path / "b"), images=16, recipe="gan", start=str(parent.run.path))
    before, after = load_weights(parent.run), prepare(order, tmp_path / "child").task.state_dict()
    for table in ("conditioner.embedding.weight", "critic_conditioner.embedding.weight"):
        assert torch.equal(after[table][0], before[table][1])
        assert torch.equal(after[table][1], before[table][2]) and torch.equal(after[table][2], before[table][2])
    assert torch.equal(after["critic.head.weight"], before["critic.head.weight"])
    with pytest.raises(Refused, match="is a GAN, and the recipe makes a VAE"):
        prepare(replace(order, recipe="vae"), tmp_path / "other")
    with pytest.raises(Refused, match="give --size 8"):
        prepare(replace(order, size=12), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_memory_is_that_of_the_larger_phase_and_of_all_that_is_trained() -> None:
    task, shape = made_task("gan", PLAN), (1, 8, 8)
    counted = needed(task, PLAN, shape)
    fixed = counted(0)
    trained = sum(p.nbytes for p in task.modules.parameters())
    averaged = sum(p.nbytes for p in task.ema_parameters().values())
    assert fixed == 3 * trained + len(PLAN.ema) * averaged
    critic, generator = task.phases
    for alone in ((critic,), (generator,)):
        task._phases = alone
        assert needed(task, PLAN, shape)(8) - needed(task, PLAN, shape)(0) <= counted(8) - fixed


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_and_frozen_parts_are_refused(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nirvana.data.shapes.source.TRAIN", 12)
    monkeypatch.setattr(planner, "WIDTHS", ((4, 0),))
    message = f"the recipe '{family}' learns from labels or from nothing, not from captions"
    for asked in ({"condition": "captions"}, {"condition": "both"}, {"encoder": "joint"}):
        with pytest.raises(Refused, match=message):
            prepare(Order("shapes", images=8, recipe=family, **asked), tmp_path / "run")
    begun = prepare(Order("shapes", images=8, recipe=family, size=24), tmp_path / "told")
    assert begun.data.captions is not None and begun.run.model_spec["conditioner"] == {"kind": "none"}
    for _ in begun.events():
        pass
    frozen = Order("shapes", images=8, recipe=family, size=24, start=str(begun.run.path), freeze=("network",))
    with pytest.raises(Refused, match="has no parts to freeze; leave --freeze out"):
        prepare(frozen, tmp_path / "run")
    assert not (tmp_path / "run").exists()
