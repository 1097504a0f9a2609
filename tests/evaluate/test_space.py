"""Feature spaces: what they refuse, that the networks are the published ones, and that features see defects."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import uniform_filter
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d

from nirvana.data import open_data
from nirvana.errors import Refused
from nirvana.evaluate import dinov2, inception, kernel_distance, manifold_scores
from nirvana.evaluate.efficientnet import EfficientNetLite0, weights_file
from nirvana.evaluate.space import ModuleSpace, open_space, to_bytes
from nirvana.evaluate.weights import read_weights

PICTURES = np.random.default_rng(0).integers(0, 256, (37, 8, 6, 3), dtype=np.uint8)


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def means(module: nn.Module | None = None, width: int = 3) -> ModuleSpace:
    return ModuleSpace("means", width, module or Means(), side=8, prepare=lambda x: x / 255)


def test_any_module_is_a_space() -> None:
    found = means()(PICTURES)
    assert found.shape == (37, 3)
    np.testing.assert_allclose(found, PICTURES.mean(axis=(1, 2)) / 255, atol=0.03)  # resized from 8 x 6 to 8 x 8
    np.testing.assert_array_equal(found[20:23], means()(PICTURES[20:23]))
    grey = means()(PICTURES[..., :1])
    np.testing.assert_allclose(grey, grey[:, :1].repeat(3, axis=1))
    assert means()(PICTURES[:1]).shape == (1, 3)


def test_shrinking_averages() -> None:
    stripes = np.zeros((1, 8, 64, 1), np.uint8)
    stripes[:, :, ::8] = 255  # a filter without averaging would see all or nothing
    assert means()(stripes)[0, 0] == pytest.approx(1 / 8, abs=0.01)


class Spoilt(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value = x.mean((2, 3))
        return torch.where(value[:, :1] > 0.9, torch.nan, value)


def test_what_is_no_picture_or_no_feature_is_said() -> None:
    with pytest.raises(ValueError, match="width"):
        means(width=4)(PICTURES)
    white = PICTURES.copy()
    white[18] = 255
    with pytest.raises(ValueError, match="not finite for picture 18"):
        means(Spoilt())(white)
    with pytest.raises(ValueError, match=r"bytes \(n, h, w, 1 or 3\) are needed"):
        means()(PICTURES[..., :2])
    spoilt = PICTURES / 255.0
    np.testing.assert_array_equal(to_bytes(spoilt), PICTURES)
    spoilt[5, 2, 2, 1] = np.nan
    with pytest.raises(ValueError, match="picture 5 has values that are no numbers"):
        to_bytes(spoilt)


def test_unknown_spaces_and_missing_weights_name_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, message in [
        ("eflite", "unknown feature space"),
        ("efflite0:9", "32 to 512"),
        ("inception:", "name their file"),
        ("dinov2:", "name the folder"),
        (f"inception:{tmp_path}/no.pth", "no such file of weights"),
        (f"dinov2:{tmp_path}", "config.json is missing"),
    ]:
        with pytest.raises(Refused, match=message):
            open_space(text)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Refused, match=r"nirvana\[evaluate\]"):
        open_space()


def test_weights_are_read_without_running_what_a_file_brings_along(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    assert torch.equal(read_weights(tmp_path / "good.pth")["a"], torch.ones(2))
    torch.save({"a": Means()}, tmp_path / "code.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00\x01")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:100])
    for name, message in [
        ("code.pth", "state dict"),
        ("list.pth", "no named tensors"),
        ("cut.safetensors", "cannot be read"),
        ("cut.pth", "cannot be read|no plain weights"),
    ]:
        with pytest.raises(Refused, match=message) as refused:
            read_weights(tmp_path / name)
        assert name in str(refused.value) and "\n" not in str(refused.value)


def published(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """EfficientNet-Lite0 layer by layer, with its normalisations where they are."""

    def layer(x: Tensor, name: str, norm: str, stride: int = 1, relu: bool = True) -> Tensor:
        kernel = weights[f"{name}.weight"]
        x = conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=x.shape[1] // kernel.shape[1])
        parts = [weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = batch_norm(x, *parts, eps=1e-3)
        return x.clamp(0, 6) if relu else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    for number in range(16):
        block = f"_blocks.{number}."
        h = layer(x, f"{block}_expand_conv", f"{block}_bn0") if number else x
        h = layer(h, f"{block}_depthwise_conv", f"{block}_bn1", {1: 2, 3: 2, 5: 2, 11: 2}.get(number, 1))
        h = layer(h, f"{block}_project_conv", f"{block}_bn2", relu=False)
        x = x + h if h.shape == x.shape else h
    return layer(x, "_conv_head", "_bn1").mean((2, 3))


def test_efficientnet_with_folded_filters_is_the_published_one() -> None:
    weights = read_weights(weights_file())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(EfficientNetLite0(weights)(x), published(x, weights), rtol=1e-3, atol=1e-4)
    assert open_space("efflite0:224").name == "EffLite0"
    assert (open_space().name, open_space().width) == ("EffLite0-128", 1280)
    assert open_space().identity != open_space("efflite0:224").identity


def test_noise_blur_and_missing_classes_are_seen_in_real_features() -> None:
    data, space = open_data("fashion-mnist:subset"), open_space("efflite0:48")
    assert data.labels is not None
    chosen = data.images[::8]
    labels = data.labels[::8]
    real, other = space(chosen[::2]), space(chosen[1::2])
    noise = np.random.default_rng(1).normal(0, 25, chosen[1::2].shape)
    noisy = space(np.clip(chosen[1::2] + noise, 0, 255).astype(np.uint8))
    blurred = space(uniform_filter(chosen[1::2], (0, 3, 3, 0)))
    missing = other[labels[1::2] < 5]
    floor = kernel_distance(other, real)
    for defect in (noisy, blurred, missing):
        assert kernel_distance(defect, real).interval.low > floor.interval.high
    assert manifold_scores(real, missing).coverage.interval.high < manifold_scores(real, other).coverage.interval.low
    assert manifold_scores(real, noisy).precision.interval.high < manifold_scores(real, other).precision.interval.low


def test_inception_is_the_one_of_fid(tmp_path: Path) -> None:
    network = inception.InceptionV3()
    assert sum(p.numel() for p in network.parameters()) == 21_785_568  # the published count without its classifiers
    pooled = network.Mixed_5b._pooled
    x = torch.ones(1, 192, 5, 5)
    network.Mixed_5b.branch_pool = nn.Identity()
    torch.testing.assert_close(pooled(x), x)  # the mean of ones is one at the border, too
    assert not torch.equal(avg_pool2d(x, 3, 1, 1), x)
    network = inception.InceptionV3()
    weights = {**network.state_dict(), "fc.weight": torch.zeros(3), "AuxLogits.fc.bias": torch.zeros(3)}
    torch.save(weights, tmp_path / "inception.pth")
    space = open_space(f"inception:{tmp_path}/inception.pth")
    found = space(PICTURES[:1])
    assert (space.name, found.shape) == ("Inception", (1, 2048))
    del weights["Mixed_7c.branch1x1.conv.weight"]
    torch.save(weights, tmp_path / "cut.pth")
    with pytest.raises(Refused, match=r"lacks 'Mixed_7c.branch1x1.conv.weight'"):
        open_space(f"inception:{tmp_path}/cut.pth")


def test_dinov2_reads_a_folder_of_the_hub(tmp_path: Path) -> None:
    config = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "mlp_ratio": 4,
        "patch_size": 14,
        "image_size": 70,
    }
    network = dinov2.DinoV2(config)
    weights = {name: torch.randn(value.shape) for name, value in network.state_dict().items()}
    save_file({**weights, "embeddings.mask_token": torch.zeros(1, 12)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    space = open_space(f"dinov2:{tmp_path}")
    assert (space.name, space(PICTURES[:2]).shape) == ("DINOv2-12", (2, 12))
    assert not np.allclose(*space(PICTURES[:2]))
    save_file({**weights, "layernorm.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match=r"'layernorm.bias' has shape \[3\], not \[12\]"):
        open_space(f"dinov2:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({**config, "use_swiglu_ffn": True}))
    with pytest.raises(Refused, match="gated"):
        open_space(f"dinov2:{tmp_path}")
