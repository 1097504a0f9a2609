"""The likelihood of pictures under a trained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana.diffusion.exact import BoxDenoiser
from nirvana.errors import Refused
from nirvana.generate.likelihood import Evaluation, Likelihood
from nirvana.generate.likelihood_request import LikelihoodRequest
from nirvana.generate.model import Model, load
from tiny_run import make_run, spec

CHAIN = {"kind": "chain", "betas": "linear", "T": 20}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("likelihood") / "pets"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("likelihood") / "plain", spec(names=(), channels=3)))


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    learned = spec(learned_variance=True, parameterization="eps", native="unit", c_noise="table", schedule=CHAIN)
    return load(make_run(tmp_path_factory.mktemp("likelihood") / "chained", learned))


def pictures(n: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 8, 8, channels), dtype=np.uint8)


METHODS: list[dict[str, Any]] = [
    {"method": "ode", "steps": 4},
    {"method": "ode", "steps": 3, "dequantise": "uniform"},
    {"method": "bound", "steps": 5},
]


@pytest.mark.parametrize("how", METHODS, ids=["ode", "uniform", "bound"])
def test_a_picture_has_the_same_likelihood_alone_and_in_any_batch(model: Model, how: dict[str, Any]) -> None:
    """Picture i draws from seed + i; so does each of its probes."""
    array = pictures(3)
    together = model.log_likelihood(array, label=["cat", "dog", "otter"], seed=5, probes=2, **how)
    split = model.log_likelihood(array, label=["cat", "dog", "otter"], seed=5, probes=2, batch=2, **how)
    alone = model.log_likelihood(array[2:], label="otter", seed=7, probes=2, **how)
    assert np.allclose(together.bits, split.bits, rtol=1e-4)
    assert np.allclose(together.bits[2:], alone.bits, rtol=1e-4)
    assert np.allclose(together.standard_errors[2:], alone.standard_errors, rtol=1e-2)
    assert np.allclose(sum(together.terms.values()), together.bits)
    assert (together.standard_errors > 0).all() and len({*together.bits.tolist()}) == 3


def test_seed_label_and_weights_matter(model: Model) -> None:
    array = pictures(2)
    first = model.log_likelihood(array, label="cat", steps=3)
    for other in ({"label": "dog"}, {"label": None}, {"label": "cat", "seed": 9}, {"label": "cat", "weights": "raw"}):
        assert not np.allclose(model.log_likelihood(array, steps=3, **other).bits, first.bits, rtol=1e-5)  # pyright: ignore
    again = model.log_likelihood(array, label=["cat", "cat"], steps=3)
    assert np.array_equal(again.bits, first.bits)


def test_the_null_class_is_what_was_trained_without_a_label(model: Model) -> None:
    import torch

    conditioner = model.parts.conditioner
    seen: list[torch.Tensor] = []
    handle = model.parts.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(args[2]["vector"]))
    model.log_likelihood(pictures(2), steps=2)
    handle.remove()
    null = conditioner.null({"vector": torch.zeros(2, 8)})["vector"]
    assert seen and all(torch.equal(vector, null) for vector in seen)


def test_the_result_says_what_it_is(model: Model) -> None:
    found = model.log_likelihood(pictures(3), label="cat", steps=4, probes=2)
    assert (len(found), found.dims, found.calls) == (3, 64, 10)
    assert found.mean == pytest.approx(found.bits.mean())
    assert found.standard_error == pytest.approx(found.bits.std(ddof=1) / math.sqrt(3))
    assert np.allclose(found.nats, -found.bits * 64 * math.log(2))
    assert "sigma/alpha = 0.0067" in found.evaluated and "decoder" in found.evaluated
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["bits_per_dim"] == pytest.approx(found.mean)
    assert value["request"]["steps"] == 4 and set(value["terms"]) == {"flow", "decoder"}
    assert value["each"]["log_likelihood"] == pytest.approx(found.nats.tolist())
    one = model.log_likelihood(pictures(1), label="cat", steps=2).to_json()
    assert one["standard_error"] is None


def test_calls_are_counted(model: Model) -> None:
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1

    for request in (
        LikelihoodRequest(steps=4, probes=3),
        LikelihoodRequest(steps=4, dequantise="uniform"),
        LikelihoodRequest(method="bound", steps=6),
        LikelihoodRequest(method="bound", steps=8, levels=8, probes=2),
    ):
        evaluation, calls = model.evaluation(request), 0
        parts = list(evaluation.run(pictures(2), None, tick))
        assert [len(part) for part in parts] == [2]
        assert calls == evaluation.calls == parts[0].calls
        assert math.isfinite(parts[0].mean)


def test_the_exact_divergence_is_what_probes_scatter_around(plain: Model) -> None:
    array = pictures(1, 3)
    exact = plain.log_likelihood(array, steps=2, dequantise="uniform", exact=True)
    request = LikelihoodRequest(steps=2, dequantise="uniform", probes=48)
    many = Likelihood.joined(list(plain.evaluation(request).run(array, None)))
    assert many.standard_errors[0] > 0
    # The same bytes, spread differently by each probe: both differences are within the error.
    assert abs(float(many.bits[0] - exact.bits[0])) < 5 * float(many.standard_errors[0]) + 0.05


def test_the_exact_divergence_takes_no_probe_but_each_time_other_noise(
    plain: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nirvana.generate.likelihood.HutchinsonTrace", None)
    found = plain.log_likelihood(pictures(1, 3), steps=1, probes=2, dequantise="uniform", exact=True)
    assert found.standard_errors[0] > 0


def test_the_decoder_of_a_ladder_does_not_depend_on_its_length(model: Model) -> None:
    short, long = (
        model.log_likelihood(pictures(2), label="cat", method="bound", steps=4, levels=levels) for levels in (8, 64)
    )
    assert np.allclose(short.terms["decoder"], long.terms["decoder"], rtol=1e-6)
    assert not np.allclose(short.terms["diffusion"], long.terms["diffusion"])


def test_the_exact_box_has_eight_bits_through_the_whole_path(plain: Model) -> None:
    request = LikelihoodRequest(dequantise="uniform", steps=64)
    box = BoxDenoiser(-1 - 1 / 255, 1 + 1 / 255)
    found = Likelihood.joined(list(Evaluation(plain.sampler(), request, box).run(pictures(12, 3), None)))
    assert found.mean == pytest.approx(8, abs=0.01)


def test_a_chain_is_asked_at_its_own_levels(chained: Model) -> None:
    evaluation = chained.evaluation(LikelihoodRequest(method="bound", steps=20))
    assert evaluation.chain is chained.parts.chain
    assert (
        evaluation.evaluated
        == "the variational bound on -log2 P(bytes) over 20 levels from sigma/alpha = 0.01, all of them"
    )
    flow = chained.evaluation(LikelihoodRequest(steps=6))
    ends = [float(level.ratio) for level in (flow.levels[0], flow.levels[-1])]
    assert ends == pytest.approx([float(evaluation.chain.level(np_t(t)).ratio) for t in (1, 20)])
    whole = chained.log_likelihood(pictures(2), method="bound", steps=20)
    assert np.isfinite(whole.bits).all() and set(whole.terms) == {"prior", "diffusion", "decoder"}
    finer = chained.log_likelihood(pictures(2), method="bound", steps=5, levels=64)
    assert finer.evaluated.endswith("over 64 levels from sigma/alpha = 0.0067, 5 of them drawn")


@pytest.mark.parametrize("method", ["ode", "bound"])
def test_the_first_level_can_be_chosen(model: Model, chained: Model, method: str) -> None:
    for one in (model, chained):
        evaluation = one.evaluation(LikelihoodRequest(method=method, ratio=0.05, steps=4))
        assert float(evaluation.levels[0].ratio) == pytest.approx(0.05)
        assert float(evaluation.chain.level(np_t(1)).ratio) == pytest.approx(0.05)
        assert "sigma/alpha = 0.05" in evaluation.evaluated
        assert float(evaluation.levels[-1].lam) == pytest.approx(-5)
        with pytest.raises(
            Refused, match=r"trained on noise sigma/alpha of 0.00674 to 148, .* start at the ratio 0.006"
        ):
            one.evaluation(LikelihoodRequest(method=method, ratio=0.006, steps=4))
    far = model.log_likelihood(pictures(2), label="cat", method=method, steps=4, ratio=0.05)
    assert not np.allclose(far.bits, model.log_likelihood(pictures(2), label="cat", method=method, steps=4).bits)


def np_t(t: int) -> Any:
    import torch

    return torch.tensor(t)


@pytest.mark.parametrize("method", ["ode", "bound"])
def test_it_is_the_likelihood_of_the_denoiser_that_samples(tmp_path: Path, method: str) -> None:
    """Where sampling clips, x0 is clipped: random weights leave the range of the data."""
    bits: list[float] = []
    for clip in (True, False):
        recommended = {"steps": 3, "solver": "ddim", "clip": clip}
        model = load(make_run(tmp_path / str(clip), spec(names=(), schedule=CHAIN, recommended=recommended)))
        bits.append(model.log_likelihood(pictures(2), method=method, steps=20).mean)
    assert bits[0] < bits[1]


def test_the_learned_variance_is_used(chained: Model) -> None:
    """The same network with its variance output cut off has another bound."""
    import torch

    sampler = chained.sampler()
    request = LikelihoodRequest(method="bound", steps=20)

    def without(x: torch.Tensor, level: Any, cond: Any, nxt: Any = None) -> Any:
        from nirvana.diffusion.prediction import Prediction

        return Prediction(sampler.parts.denoiser(x, level, cond, nxt).x0)

    learned = next(Evaluation(sampler, request).run(pictures(2), None))
    small = next(Evaluation(sampler, request, without).run(pictures(2), None))
    assert np.allclose(learned.terms["prior"], small.terms["prior"])
    assert not np.allclose(learned.terms["diffusion"], small.terms["diffusion"], rtol=1e-3)


def test_pictures_and_labels_that_do_not_fit_are_refused(model: Model, plain: Model) -> None:
    with pytest.raises(Refused, match=r"takes pictures of 8 x 8 x 1 .*, got 8 x 8 x 3; resize or convert"):
        model.log_likelihood(pictures(2, 3))
    with pytest.raises(Refused, match="got 4 x 8 x 1"):
        model.log_likelihood(pictures(2)[:, :4])
    with pytest.raises(Refused, match="no picture to evaluate"):
        model.log_likelihood(pictures(2)[:0])
    with pytest.raises(Refused, match="3 labels were given for 2 pictures"):
        model.log_likelihood(pictures(2), label=["cat", "dog", "cat"])
    with pytest.raises(Refused, match="unknown label 'cta'; did you mean 'cat'"):
        model.log_likelihood(pictures(2), label="cta")
    with pytest.raises(Refused, match="trained without labels"):
        plain.log_likelihood(pictures(2, 3), label="cat")


def test_a_model_that_saw_every_label_is_not_asked_without(tmp_path: Path) -> None:
    always = spec()
    always["conditioner"] = {**always["conditioner"], "drop": 0.0}  # pyright: ignore
    model = load(make_run(tmp_path / "always", always))
    with pytest.raises(Refused, match="with every label shown; give the pictures' labels"):
        model.log_likelihood(pictures(1), steps=2)
    assert len(model.log_likelihood(pictures(1), label="cat", steps=2)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "vlb"}, "unknown method 'vlb'"),
        ({"dequantise": "uniforms"}, "did you mean 'uniform'"),
        ({"weights": "best"}, "unknown weights 'best'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"method": "bound", "steps": 1}, "steps must be at least 2"),
        ({"probes": 0}, "probes must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"method": "bound", "levels": 1}, "levels must be at least 2"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"ratio": 0.0}, "ratio must be above 0"),
        ({"ratio": -0.1}, "ratio must be a finite number"),
        ({"levels": 10}, "levels are the T of the bound"),
        ({"method": "bound", "exact": True}, "the bound has no divergence"),
        ({"method": "bound", "dequantise": "uniform"}, "the bound has no divergence"),
    ],
)
def test_requests_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        LikelihoodRequest(**changes)


def test_what_the_model_cannot_do_is_refused_before_the_first_call(model: Model) -> None:
    with pytest.raises(Refused, match="unknown solver 'unipc-33'; did you mean 'unipc-3'"):
        model.evaluation(LikelihoodRequest(solver="unipc-33"))
    with pytest.raises(Refused, match=r"'ddpm' draws noise, .*use one of: ddim, deis-2"):
        model.evaluation(LikelihoodRequest(solver="ddpm"))
    with pytest.raises(
        Refused, match=r"'adaptive' chooses its steps by what else is in the batch, .*use one of: ddim, deis-2"
    ):
        model.evaluation(LikelihoodRequest(solver="adaptive"))
    with pytest.raises(Refused, match="takes at most 8 steps, got 9"):
        model.evaluation(LikelihoodRequest(method="bound", steps=9, levels=8))


def test_a_model_of_no_numbers_is_refused(model: Model) -> None:
    from nirvana.diffusion.prediction import Prediction

    def broken(x: Any, level: Any, cond: Any, nxt: Any = None) -> Prediction:
        return Prediction(x * math.nan)

    with pytest.raises(Refused, match="no finite likelihood"):
        list(Evaluation(model.sampler(), LikelihoodRequest(steps=2), broken).run(pictures(1), None))
