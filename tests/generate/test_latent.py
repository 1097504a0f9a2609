"""GANs and VAEs through the same requests as diffusion: seeds, ways between pictures, records, refusals, the bound."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.errors import Refused
from nirvana.generate import Images, load, reproduce
from nirvana.generate.export import export_run
from nirvana.generate.family import family_of, model_parts
from nirvana.generate.model import Model
from nirvana.generate.sheet import axis, requests
from nirvana.latent import Posterior
from nirvana.modality.png import read_png
from tiny_families import FAMILIES, NAMES, make_run, spec


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp(request.param) / "run", request.param), device="cpu")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("vae") / "run", "vae"), device="cpu")


def normal(seed: int) -> torch.Tensor:
    from nirvana.diffusion import SeededNoise

    return SeededNoise([seed], (5,)).initial()


def drawn(model: Model, z: torch.Tensor, vector: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        x0 = model.parts.decoder(z, vector)[0]
    return ((x0.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8)


def test_a_picture_is_what_the_decoder_makes_of_its_seed_and_class(model: Model) -> None:
    images = model.generate(label=["dog", "cat"], n=4, seed=7)
    table = model.parts.conditioner.embedding.weight
    for i in range(4):
        vector = table[NAMES.index(("dog", "cat")[i % 2])][None]
        assert np.array_equal(images.array[i], drawn(model, normal(7 + i), vector))
        assert (images.metadata(i)["seed"], images.metadata(i)["label"]) == (7 + i, ("dog", "cat")[i % 2])


def test_it_is_the_same_alone_and_in_any_batch_and_other_weights_make_another(model: Model) -> None:
    whole = model.generate(label="cat", n=5, seed=3).array
    assert np.array_equal(model.generate(label="cat", n=5, seed=3, batch=2).array, whole)
    assert np.array_equal(model.generate(label="cat", n=1, seed=6).array[0], whole[3])
    raw = dataclasses.replace(model.request(label="cat", n=5, seed=3), weights="raw")
    assert not np.array_equal(model.gather(raw, model.stream(raw)).array, whole)
    assert not np.array_equal(model.generate(label="dog", n=5, seed=3).array, whole)


def test_a_way_begins_and_ends_at_the_pictures_of_its_seeds_and_classes(model: Model) -> None:
    way = model.generate(label="cat", n=5, seed=4, to="otter seed:9", batch=2)
    assert np.array_equal(way.array[0], model.generate(label="cat", seed=4).array[0])
    assert np.array_equal(way.array[4], model.generate(label="otter", seed=9).array[0])
    table = model.parts.conditioner.embedding.weight
    angle = math.pi / 2 * 0.75
    z = math.cos(angle) * normal(4) + math.sin(angle) * normal(9)
    vector = torch.lerp(table[NAMES.index("cat")], table[NAMES.index("otter")], 0.75)[None]
    assert np.array_equal(way.array[3], drawn(model, z, vector))
    assert (way.metadata(0)["seed"], way.metadata(4)["seed"]) == (4, 9)
    assert (way.request.to, way.request.to_seed) == ("otter", 9)


def test_a_way_changes_only_what_its_end_names(model: Model) -> None:
    to_class, to_seed = (model.generate(label="cat", n=3, seed=4, to=end).array for end in ("otter", "seed:9"))
    assert np.array_equal(to_class[2], model.generate(label="otter", seed=4).array[0])
    assert np.array_equal(to_seed[2], model.generate(label="cat", seed=9).array[0])
    assert model.generate(n=3, to="seed:9").request.labels == NAMES[:1]


def test_every_file_is_made_again_byte_for_byte(model: Model, tmp_path: Path) -> None:
    plain = model.generate(n=4, seed=2, batch=3).save(tmp_path / "plain")
    way = model.generate(label="dog", n=5, to="seed:8", batch=2).save(tmp_path / "way")
    for file in (*plain, *way):
        assert reproduce(file).same_bytes
    record: Any = read_png(way[3])[1]
    assert (record["request"]["solver"], record["request"]["steps"], record["request"]["to_seed"]) == (
        "direct",
        1,
        8,
    )


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"steps": 4}, "steps"),
        ({"solver": "ddim"}, "solver"),
        ({"guidance": 2.0}, "guidance"),
        ({"guidance_interval": (0.1, 2.0)}, "guidance-interval"),
        ({"rule": "apg"}, "rule"),
        ({"negative": "cat"}, "negative"),
        ({"autoguidance": "1/8"}, "autoguidance"),
        ({"classifier": "fashion"}, "classifier"),
        ({"precision": "bfloat16"}, "precision"),
        ({"engine": "onnx"}, "engine"),
        ({"label": "cow"}, "unknown label 'cow'"),
        ({"label": "cat:0.5+dog:0.5"}, "unknown label"),
        ({"prompt": "a red cat"}, "knows labels, not prompts"),
        ({"label": "cat", "to": "a red dog", "n": 2}, "unknown label 'a red dog'"),
    ],
)
def test_what_diffusion_alone_can_do_is_refused_by_name(model: Model, asked: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named) as refusal:
        model.generate(**asked)
    assert "\n" not in str(refusal.value)


def test_so_is_what_other_commands_would_do_with_it(model: Model, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has no grid to choose"):
        model.request(grid="karras")
    with pytest.raises(Refused, match="which draws in one call"):
        requests(model, model.request(), axis("steps=2,4"))
    with pytest.raises(Refused, match="no network to export"):
        export_run(model.run, "onnx")
    with pytest.raises(Refused, match="not compiled"):
        load(model.run.path, compile=True)
    assert len(requests(model, model.request(), axis("label=cat,dog"), axis("seed=1,2"))) == 2


def test_without_classes_there_is_a_way_to_another_seed_only(tmp_path: Path) -> None:
    plain = load(make_run(tmp_path / "run", "gan", ()), device="cpu")
    assert np.array_equal(plain.generate(n=2, to="seed:3").array[1], plain.generate(seed=3).array[0])
    with pytest.raises(Refused, match="was trained without labels; leave the way to 'cat' out, or go to a seed"):
        plain.generate(n=2, to="cat")


def test_info_says_what_it_is(model: Model) -> None:
    known = model.info()
    assert known["family"] == model.family == model.parts.family
    assert known["solvers"] == known["moments"] == [] and known["labels"] == list(NAMES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "gna"}, "unknown family 'gna'; did you mean 'gan'"),
        ({"latent": 0}, "latent must be at least 1"),
        ({"latent": None}, "latent must be a whole number"),
        ({"shape": [1, 8, 9]}, "does not fit the shape"),
        ({"conditioner": {"kind": "none"}}, "does not fit"),
        ({"network": {"kind": "unet"}}, "must be a pyramid"),
        ({"network": {"kind": "pyramid", "wdith": 3}}, "did you mean 'width'"),
        ({"network": {"kind": "pyramid", "channels": 1, "size": [8, 0]}}, "cannot be built"),
        ({"solver": "ddim"}, "unknown entry 'solver'"),
        ({"codec": 3}, "must be an object"),
    ],
)
def test_a_description_that_was_edited_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        model_parts({**spec(family), **changes})
    with pytest.raises(Refused, match="lacks 'codec'"):
        model_parts({name: value for name, value in spec(family).items() if name != "codec"})
    assert family_of({}) == "diffusion"


# The bound of a VAE


def test_the_bound_is_the_mass_of_the_bytes_bins_plus_the_divergence(vae: Model) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    pictures[0, :4] = 0
    pictures[0, 4:] = 255
    with torch.no_grad():  # random weights are too wild for a likelihood that can be held in numbers
        for parameter in vae.parts.modules().parameters():
            parameter.mul_(0.2)
    found = vae.log_likelihood(pictures, label=["cat", "dog", "cat"], method="bound", probes=2, seed=9, batch=2)
    parts = vae.parts
    from nirvana.diffusion import SeededNoise

    noise = SeededNoise(range(9, 12), (5,))
    with torch.no_grad():
        x0 = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        vector = parts.conditioner.embedding.weight[[0, 1, 0]]
        posterior = Posterior.of(parts.encoder(x0, vector))
        sigma, total = parts.scale().exp().double(), torch.zeros(3, dtype=torch.float64)
        for probe in range(2):
            mean = parts.decoder(posterior.sample(noise.fresh(("bound", probe))), vector).double()
            likely = torch.distributions.Normal(mean, sigma)
            low = torch.where(x0 <= -1, 0.0, likely.cdf(x0.double() - 1 / 255))
            high = torch.where(x0 >= 1, 1.0, likely.cdf(x0.double() + 1 / 255))
            total -= (high - low).log().flatten(1).sum(1) / 2
    bits = (total + posterior.kl()) / (64 * math.log(2))
    np.testing.assert_allclose(found.bits, bits.numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.terms["kl"] + found.terms["decoder"], found.bits, rtol=1e-9)
    assert np.isfinite(found.standard_errors).all() and found.calls == 2


def test_a_bound_that_cannot_be_is_refused(model: Model) -> None:
    pictures = np.zeros((2, 8, 8, 1), np.uint8)
    if model.family == "gan":
        with pytest.raises(Refused, match="is a GAN, which gives pictures no probability"):
            model.log_likelihood(pictures, label="cat", method="bound")
        return
    for asked, message in (
        ({}, "use the method 'bound'"),
        ({"method": "bound", "levels": 10}, "leave 'levels' out"),
        ({"method": "bound", "label": None}, "give the pictures' labels"),
        ({"method": "bound", "label": ["cat"]}, "1 labels were given for 2"),
    ):
        with pytest.raises(Refused, match=message):
            model.log_likelihood(pictures, **{"label": "cat", **asked})
    made = model.generate(label="cat", n=2)
    assert isinstance(made, Images)
    assert len(model.log_likelihood(made, label="cat", method="bound")) == 2
