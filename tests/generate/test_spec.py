from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from nirvana.condition import LabelConditioner
from nirvana.diffusion.denoiser import TableCode
from nirvana.diffusion.level import Level
from nirvana.diffusion.prediction import EDM, FlowVelocity, Score, Velocity
from nirvana.diffusion.schedule import (
    VE,
    Cosine,
    EDMPath,
    LinearVP,
    RectifiedFlow,
    Shifted,
    Tabulated,
    timestep_shift,
    zero_terminal_snr,
)
from nirvana.errors import Refused
from nirvana.generate.spec import build
from tiny_run import spec


def test_a_description_survives_json_and_becomes_what_it_says() -> None:
    parts = build(json.loads(json.dumps(spec())))
    assert isinstance(parts.schedule, RectifiedFlow)
    assert isinstance(parts.conditioner, LabelConditioner)
    assert parts.conditioner.names == ("cat", "dog", "otter")
    assert parts.shape == (1, 8, 8)
    assert (parts.recommended.steps, parts.recommended.guidance, parts.recommended.grid) == (3, 2.0, "uniform")
    assert set(parts.modules().state_dict()) >= {"conditioner.embedding.weight", "denoiser.net.out.weight"}
    cond = parts.conditioner(torch.tensor([0, 2]))
    x0 = parts.denoiser(torch.ones(2, 1, 8, 8), Level.of(0.5, 0.5), cond).x0
    assert torch.allclose(x0, torch.ones(2, 1, 8, 8) * 2 * 0.5, atol=1e-6)  # an untrained flow: F = 0, x0 = x


def test_other_kinds() -> None:
    changes: dict[str, Any] = {
        "schedule": {"kind": "chain", "betas": "linear", "T": 50},
        "c_noise": "table",
        "parameterization": "edm",
        "sigma_data": 0.25,
        "native": "unit",
        "c_in": "edm",
    }
    parts = build(spec(names=(), **changes))
    assert isinstance(parts.schedule, Tabulated)
    assert parts.chain is not None
    assert parts.chain.T == 50
    assert parts.denoiser.parameterization == EDM(0.25)
    assert isinstance(parts.denoiser.c_noise, TableCode)
    assert (parts.denoiser.native, parts.denoiser.c_in, parts.denoiser.sigma_data) == ("unit", "edm", 0.25)
    parts = build(spec(schedule={"kind": "cosine"}, parameterization="v", learned_variance=True))
    assert isinstance(parts.schedule, Cosine)
    assert isinstance(parts.denoiser.parameterization, Velocity)
    assert parts.denoiser.learned_variance


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({"kind": "rectified-flow"}, RectifiedFlow()),
        ({"kind": "linear-vp"}, LinearVP()),
        ({"kind": "cosine", "s": 0.1}, Cosine(0.1)),
        ({"kind": "ve", "sigma_max": 7}, VE(sigma_max=7.0)),
        ({"kind": "edm"}, EDMPath()),
        ({"kind": "shifted", "of": {"kind": "cosine"}, "lam": -1.5}, Shifted(Cosine(), -1.5)),
        ({"kind": "timestep-shift", "of": {"kind": "rectified-flow"}}, timestep_shift(RectifiedFlow(), 3.0)),
        ({"kind": "zero-terminal-snr", "of": {"kind": "linear-vp"}}, zero_terminal_snr(LinearVP())),
    ],
)
def test_every_schedule_can_be_described(described: dict[str, Any], expected: object) -> None:
    assert build(spec(schedule=described)).schedule == expected


def test_a_changed_table_is_still_a_table() -> None:
    chain = {"kind": "chain", "betas": "scaled-linear", "T": 50}
    parts = build(spec(schedule={"kind": "zero-terminal-snr", "of": chain}, c_noise="table", parameterization="v"))
    assert isinstance(parts.schedule, Tabulated) and parts.schedule.T == 50
    assert parts.schedule.at(50).is_pure_noise and parts.chain is None
    assert parts.denoiser.c_noise == TableCode(parts.schedule)
    assert float(parts.denoiser.c_noise(Level.of(0.0, 1.0))) == 49


def test_a_velocity_is_that_of_the_schedule() -> None:
    parts = build(spec(schedule={"kind": "cosine"}, parameterization="velocity"))
    assert parts.denoiser.parameterization == FlowVelocity(Cosine())
    assert build(spec(parameterization="score")).denoiser.parameterization == Score()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown entry 'colour'"),
        ({"shedule": 1}, "did you mean 'schedule'"),
        ({"parameterization": "epsilon"}, "unknown parameterization 'epsilon'"),
        ({"native": "units"}, "did you mean 'unit'"),
        ({"c_in": 1}, "unknown c_in"),
        ({"c_noise": "angel"}, "did you mean 'angle'"),
        ({"c_noise": "table"}, "unknown noise code 'table'"),
        ({"schedule": {"kind": "cosin"}}, "did you mean 'cosine'"),
        ({"schedule": "cosine"}, "'schedule' of the model's description must be an object"),
        ({"schedule": {"kind": "chain", "betas": "linear", "T": 1}}, "T must be at least 2"),
        ({"schedule": {"kind": "chain", "betas": "line", "T": 9}}, "did you mean 'linear'"),
        ({"codec": {"kind": "vae"}}, "unknown codec"),
        ({"conditioner": {"kind": "sound"}}, "unknown conditioner"),
        ({"conditioner": {"kind": "text"}}, "'encoder' must be an object"),
        ({"conditioner": {"kind": "text", "encoder": {"kind": "ear"}}}, "unknown text encoder"),
        ({"conditioner": {"kind": "labels", "names": ["a"], "dim": 7}}, "do not fit"),
        ({"network": {"kind": "dot"}}, "unknown network 'dot'; did you mean 'dit'"),
        ({"network": {"kind": "dit", "width": 30}}, "cannot be built"),
        ({"network": {"kind": "unet", "chanels": 1}}, "did you mean 'channels'"),
        ({"network": {"kind": "unet", "channels": 1}}, "cannot be built"),
        ({"shape": [3, 8, 8]}, "do not fit"),
        ({"shape": [1, 8]}, "do not fit"),
        ({"shape": "1x8x8"}, "must be a list of"),
        ({"shape": [1, 8, -8]}, "shape must be at least 1"),
        ({"trained_lam": [1]}, "must be a list of"),
        ({"sigma_data": 0}, "sigma_data"),
        ({"recommended": {"steps": 0}}, "recommended steps"),
        ({"recommended": {"solver": "dim"}}, "did you mean 'ddim'"),
        ({"recommended": {"stepz": 3}}, "did you mean 'steps'"),
    ],
)
def test_what_is_unknown_or_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        build({**spec(), **changes})


@pytest.mark.parametrize("name", ["network", "schedule", "shape", "recommended"])
def test_a_missing_entry_is_named(name: str) -> None:
    description = {key: value for key, value in spec().items() if key != name}
    with pytest.raises(Refused, match=f"lacks '{name}'"):
        build(description)


def test_weights_that_do_not_fit_are_refused() -> None:
    parts = build(spec())
    weights = dict(parts.modules().state_dict())
    del weights["conditioner.embedding.weight"]
    with pytest.raises(Refused, match=r"somewhere do not fit.*embedding"):
        parts.load(weights, "somewhere")
