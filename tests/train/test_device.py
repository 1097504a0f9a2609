"""Devices and precisions as asked, and a global generator that nobody finds changed."""

from __future__ import annotations

import pytest
import torch

from nirvana.errors import Refused
from nirvana.train import device as devices
from nirvana.train.device import pick_device, pick_precision, seeded

CPU = torch.device("cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(Refused, match="'cuda' is not there"):
        pick_device("cuda")
    with pytest.raises(Refused, match="did you mean 'cuda'"):
        pick_device("cudda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto").type == "cuda" and pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(Refused, match="'cuda:1' is not there"):
        pick_device("cuda:1")


@pytest.mark.parametrize(("there", "seconds"), [(False, 0.1), (True, 0.89), (True, 0.92), (True, 2.0)])
def test_precision_follows_what_is_quicker(there: bool, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 has to be a tenth quicker; the best of several runs counts, whatever disturbed the others."""
    disturbed = iter([5.0, *[1.0] * 100])

    def measured(dtype: torch.dtype) -> float:
        return seconds if dtype == torch.bfloat16 else next(disturbed)

    devices.bfloat16_pays.cache_clear()
    monkeypatch.setattr(devices, "has_bfloat16", lambda _device: there)
    monkeypatch.setattr(devices, "_block_seconds", measured)
    assert pick_precision("float32", CPU) == torch.float32
    quicker = there and seconds < 0.9
    assert pick_precision("auto", CPU) == (torch.bfloat16 if quicker else torch.float32)
    devices.bfloat16_pays.cache_clear()
    if there:
        assert pick_precision("bfloat16", CPU) == torch.bfloat16
    else:
        with pytest.raises(Refused, match="does not compute in bfloat16"):
            pick_precision("bfloat16", CPU)


@pytest.mark.parametrize("names", [{}, {"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_f": True}])
def test_the_cpu_is_asked(names: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: names)
    assert devices.has_bfloat16(CPU) == any("bf16" in name for name in names)


def test_a_block_is_timed_in_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    backward = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: (seen.append(loss.dtype), backward(loss)))
    assert all(devices._block_seconds(dtype) > 0 for dtype in devices.DTYPES.values())
    assert seen == [torch.float32, torch.bfloat16]


def test_seeded_is_a_function_of_its_key() -> None:
    before = torch.get_rng_state()
    found = []
    for key in ((1, "a", 2), (1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "b", 2)):
        with seeded(CPU, *key):
            found.append(float(torch.rand(())))
    assert found[0] == found[1] and len(set(found)) == 4
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="shape"), seeded(CPU, 1):
        torch.rand(3).reshape(2)
    assert torch.equal(torch.get_rng_state(), before)
