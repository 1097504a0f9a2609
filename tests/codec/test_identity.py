from __future__ import annotations

import pytest
import torch

from nirvana.codec import Identity, codec_from_config
from nirvana.errors import Refused


def test_every_byte_comes_back() -> None:
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    codec = Identity()
    z = codec.encode(x)
    assert z.dtype == torch.float32
    assert (float(z.min()), float(z.max())) == (-1.0, 1.0)
    assert torch.equal(codec.decode(z), x)
    assert torch.equal(codec.preview(z), x)


def test_decode_rounds_to_the_nearest_and_clamps() -> None:
    z = torch.tensor([-9.0, -1 + 0.6 / 127.5, 0.4 / 127.5, 9.0, torch.nan, torch.inf, -torch.inf]).reshape(1, 1, 7)
    assert Identity().decode(z).flatten().tolist() == [0, 1, 128, 255, 0, 255, 0]


def test_config_round_trip_and_unknown_kind() -> None:
    assert isinstance(codec_from_config(Identity().config()), Identity)
    with pytest.raises(Refused, match="unknown codec 'vae'"):
        codec_from_config({"kind": "vae"})
