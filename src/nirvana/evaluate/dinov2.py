"""DINOv2 as a feature space, from a local folder as the hub stores it (config.json and model.safetensors)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from nirvana.errors import Refused
from nirvana.evaluate.space import ModuleSpace
from nirvana.evaluate.weights import fill, read_weights
from nirvana.files import Json, read_json

SIDE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KEPT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "patch_size", "image_size")


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))


class _Layer(nn.Module):
    """x + s1 attention(norm x), then x + s2 mlp(norm x)."""

    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.layer_scale1, self.layer_scale2 = _Scale(width), _Scale(width)
        projections = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        output = nn.ModuleDict({"dense": nn.Linear(width, width)})
        self.attention = nn.ModuleDict({"attention": projections, "output": output})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        h = self.norm1(x)
        split = (*x.shape[:2], self._heads, -1)
        query, key, value = (
            self.get_submodule(f"attention.attention.{name}")(h).reshape(split).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
        x = x + self.layer_scale1.lambda1 * self.get_submodule("attention.output.dense")(mixed)
        return x + self.layer_scale2.lambda1 * self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))


class _Embeddings(nn.Module):
    def __init__(self, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, patch, patch)})

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        patches = self.patch_embeddings["projection"](x)
        places = self._places(patches.shape[2], patches.shape[3])
        first = self.cls_token + self.position_embeddings[:, :1]
        return torch.cat([first.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2) + places], dim=1)

    def _places(self, rows: int, columns: int) -> Float[Tensor, "1 n d"]:
        """The learned places, resampled to the grid of patches that there is."""
        own = self.position_embeddings[:, 1:]
        side = round(own.shape[1] ** 0.5)
        grid = own.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if (rows, columns) != (side, side):
            grid = interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        return grid.flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """The class token after the last normalisation, of pictures standardised as ImageNet's.

    Source: Oquab et al. 2024; the names of the parameters are those that the hub's folders have.
    """

    def __init__(self, config: Mapping[str, Json]) -> None:
        super().__init__()
        width, layers, heads, ratio, patch, side = (int(str(config[name])) for name in _KEPT)
        epsilon = float(str(config.get("layer_norm_eps", 1e-6)))
        self.width, self.patch = width, patch
        self.embeddings = _Embeddings(width, patch, side)
        stack = nn.ModuleList(_Layer(width, heads, width * ratio, epsilon) for _ in range(layers))
        self.encoder = nn.ModuleDict({"layer": stack})
        self.layernorm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        h = self.embeddings(x)
        for layer in self.encoder["layer"].children():
            h = layer(h)
        return self.layernorm(h[:, 0])


def dinov2_space(folder: str, device: torch.device | str = "cpu") -> ModuleSpace:
    """The space DINOv2-WIDTH with the model of a local folder. Refused where it is none, or its layers are gated."""
    if not folder:
        raise Refused("DINOv2 has no weights of its own here; name the folder of the model: dinov2:FOLDER")
    path = Path(folder).expanduser()
    config = read_json(path / "config.json", "name a folder with config.json and model.safetensors")
    lacking = [name for name in _KEPT if name not in config]
    if lacking or config.get("use_swiglu_ffn"):
        why = f"its config.json lacks '{lacking[0]}'" if lacking else "its layers are gated"
        raise Refused(f"{path}: no DINOv2 that can be read here ({why}); use its small, base or large model")
    network = DinoV2(config)
    weights = read_weights(path / "model.safetensors")
    fill(network, {name: value for name, value in weights.items() if name != "embeddings.mask_token"}, path)
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()[:16]
    side = SIDE - SIDE % network.patch
    name = f"DINOv2-{network.width}"
    identity = f"dinov2 {digest}"
    return ModuleSpace(name, network.width, network, side=side, prepare=_prepare, identity=identity, device=device)


def _prepare(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    mean, deviation = (x.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
    return (x / 255 - mean) / deviation
