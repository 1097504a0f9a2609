"""The judge names what real pictures show, says so for any batch, and refuses what it cannot read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nirvana.codec import Identity
from nirvana.data import Dataset, open_data
from nirvana.diffusion import Level
from nirvana.errors import Refused
from nirvana.evaluate import CLASSIFIERS, FashionJudge
from nirvana.evaluate import judge as judge_module
from nirvana.evaluate.judge import JudgeNetwork, standardise
from nirvana.generate.steering import Classifier

WEIGHTS = Path(judge_module.__file__).parent / "weights" / "fashion_judge.safetensors"


@pytest.fixture(scope="module")
def judge() -> FashionJudge:
    return FashionJudge.load()


@pytest.fixture(scope="module")
def test_set() -> Dataset:
    return open_data("fashion-mnist:subset-test")


def test_names_nine_of_ten_unseen_pictures(judge: FashionJudge, test_set: Dataset) -> None:
    found, probabilities = judge.classify(test_set.images)
    assert len(found) >= 1000
    assert np.mean(found == test_set.labels) >= 0.90
    confusion = np.bincount(np.asarray(test_set.labels) * 10 + found, minlength=100).reshape(10, 10)
    assert (confusion.diagonal() / confusion.sum(axis=1)).min() > 0.6  # no class is given up
    # Sure where right: the stated probability of the answer is about the rate of right answers.
    assert abs(probabilities.max(axis=1).mean() - np.mean(found == test_set.labels)) < 0.06


def test_labels_probabilities_and_features_belong_together(judge: FashionJudge, test_set: Dataset) -> None:
    images = test_set.images[:300]  # more than one block
    labels, probabilities = judge.classify(images)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, probabilities.argmax(axis=1))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    tensors = load_file(WEIGHTS)
    logits = judge.features(images) @ tensors["classify.weight"].float().numpy().T
    logits = logits + tensors["classify.bias"].float().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_picture_is_judged_alike_alone_and_in_any_batch(judge: FashionJudge, test_set: Dataset) -> None:
    images = test_set.images[:260]
    features = judge.features(images)
    for index in (0, 255, 256, 259):
        np.testing.assert_allclose(judge.features(images[index : index + 1])[0], features[index], atol=1e-4)
    np.testing.assert_array_equal(judge.features(images[..., 0]), features)


def test_no_pictures_give_no_answers(judge: FashionJudge) -> None:
    labels, probabilities = judge.classify(np.zeros((0, 28, 28, 1), np.uint8))
    assert labels.shape == (0,)
    assert probabilities.shape == (0, 10)


def test_read_only_pictures_are_taken(judge: FashionJudge) -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    images.setflags(write=False)
    judge.classify(images)  # a warning would fail the test


@pytest.mark.parametrize("shape", [(1, 32, 32, 1), (1, 28, 28, 3), (1, 28, 27)])
def test_other_pictures_are_refused(judge: FashionJudge, shape: tuple[int, ...]) -> None:
    with pytest.raises(Refused, match=" x ".join(str(side) for side in shape[1:])):
        judge.classify(np.zeros(shape, np.uint8))


def test_the_weights_are_small_and_the_judge_computes_in_single_precision(judge: FashionJudge) -> None:
    assert WEIGHTS.stat().st_size <= 600_000
    assert judge.features(np.zeros((1, 28, 28), np.uint8)).dtype == np.float32


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    whole = WEIGHTS.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match=r"judge.safetensors does not hold the judge's weights"):
        FashionJudge.load(path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(Refused, match=r"does not hold the judge's weights .*; reinstall"):
        FashionJudge.load(path)
    with pytest.raises(Refused, match="does not hold"):
        FashionJudge.load(tmp_path / "none")


def test_the_network_can_learn() -> None:
    """What the script that builds the judge relies on: every parameter gets a gradient."""
    network = JudgeNetwork()
    pixels = torch.randint(0, 256, (4, 28, 28), dtype=torch.uint8)
    torch.nn.functional.cross_entropy(network(standardise(pixels)), torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_steers_by_the_probabilities_it_states(judge: FashionJudge, test_set: Dataset) -> None:
    images = test_set.images[:20]
    x0 = Identity().encode(torch.from_numpy(images.copy()).permute(0, 3, 1, 2)).requires_grad_()
    log_probs = judge(x0, Level.of(0.6, 0.8))
    np.testing.assert_allclose(log_probs.detach().exp().numpy(), judge.classify(images)[1], atol=1e-5)
    (gradient,) = torch.autograd.grad(log_probs[:, 3].sum(), x0)
    with torch.no_grad():
        better = judge(x0 + 0.05 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None], Level.of(1.0, 0.0))
    assert (better[:, 3] > log_probs[:, 3]).all()
    assert isinstance(judge, Classifier) and judge.names == test_set.names
    assert CLASSIFIERS["fashion"]().shape == (1, 28, 28)
