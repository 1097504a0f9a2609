"""A small classifier of Fashion-MNIST that ships with the package: it says which class a sample shows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional

from nirvana.data.builtin import FASHION_NAMES
from nirvana.diffusion.guidance.classifier import Reads
from nirvana.diffusion.level import Level
from nirvana.errors import Refused

SIDE = 28
CLASSES = 10
FEATURES = 128


class JudgeNetwork(nn.Module):
    """A convolutional classifier of 28 x 28 grey pictures: 270 thousand numbers, 21 MFLOP a picture.

    The stem folds 2 x 2 pixels into channels, so that the first convolution already runs on 14 x 14.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), *_block(4, 32), *_block(32, 64), nn.MaxPool2d(2))
        self.widen = nn.Sequential(*_block(64, 96))
        self.refine = nn.Sequential(*_block(96, 96))
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3))
        self.project = nn.Linear(96 * 3 * 3, FEATURES)
        self.classify = nn.Linear(FEATURES, CLASSES)

    def features(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 128"]:
        """The activations the last layer reads."""
        h = self.widen(self.stem(x))
        return functional.silu(self.project(self.pool(h + self.refine(h))))

    def forward(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 10"]:
        """The logits of pictures that `standardise` made."""
        return self.classify(self.features(x))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def standardise(pixels: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
    """Pixels as the network reads them: about zero mean and unit deviation over the training set."""
    return _standardised(pixels.float()[:, None])


def _standardised(pixels: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    return (pixels - 73.0) / 90.0


class FashionJudge:
    """The trained classifier. Its right answers on the 10,000 test pictures are counted by the script that builds it.

    It can steer a model (`nirvana.load(RUN, classifiers={"fashion": FashionJudge.load})`): it reads predicted pictures.
    Source of the pictures and of the order of the classes: Xiao et al. 2017, "Fashion-MNIST".
    """

    names: tuple[str, ...] = FASHION_NAMES
    shape: tuple[int, ...] | None = (1, SIDE, SIDE)
    reads: Reads = "x0"

    def __init__(self, network: JudgeNetwork) -> None:
        self._network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | None = None) -> FashionJudge:
        """The judge with the weights at `path`, or those that ship. Refused where the file is no such weights."""
        source = path if path is not None else files("nirvana.evaluate") / "weights" / "fashion_judge.safetensors"
        network = JudgeNetwork()
        try:
            tensors = load_tensors(source.read_bytes())
            network.load_state_dict(tensors)
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise Refused(f"{source} does not hold the judge's weights ({reason}); reinstall nirvana") from error
        return cls(network)

    def __call__(self, x0: Float[Tensor, "b 1 28 28"], level: Level) -> Float[Tensor, "b 10"]:
        """log p(class | x0) of pictures from -1 to 1, which autograd can differentiate; `level` makes no difference."""
        del level
        device = self._network.classify.weight.device
        logits = self._network(_standardised((x0.to(device) + 1) * 127.5))
        return torch.log_softmax(logits, dim=1)

    def classify(
        self, images: UInt8[np.ndarray, "n h w *c"]
    ) -> tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n 10"]]:
        """The likeliest label of each picture and the probabilities of all ten.

        Refused where the pictures are not 28 x 28 and grey.
        """
        features = torch.from_numpy(self.features(images))
        probabilities = torch.softmax(self._network.classify(features), dim=1)
        return probabilities.argmax(dim=1).numpy(), probabilities.numpy()

    def features(self, images: UInt8[np.ndarray, "n h w *c"]) -> Float[np.ndarray, "n 128"]:
        """What the last layer reads: a space in which pictures of one kind lie together.

        Refused where the pictures are not 28 x 28 and grey.
        """
        pixels = _grey(images)
        result = np.empty((len(pixels), FEATURES), np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), 256):  # memory stays flat whatever n is
                block = torch.from_numpy(pixels[start : start + 256].copy())  # a read-only map is no tensor
                result[start : start + 256] = self._network.features(standardise(block)).numpy()
        return result


def _grey(images: UInt8[np.ndarray, "n h w *c"]) -> UInt8[np.ndarray, "n h w"]:
    if images.shape[1:] not in ((SIDE, SIDE), (SIDE, SIDE, 1)):
        shape = " x ".join(str(side) for side in images.shape[1:])
        raise Refused(f"the judge reads {SIDE} x {SIDE} grey pictures, got {shape}; ask it about Fashion-MNIST only")
    return images.reshape(len(images), SIDE, SIDE)
