"""The options that save time at sampling: which calls they make, and that they leave the pictures alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nirvana.condition import LabelConditioner
from nirvana.errors import Refused
from nirvana.generate import export, network
from nirvana.generate.images import Images
from nirvana.generate.model import Model, load
from nirvana.generate.network import Compiled, in_bfloat16
from nirvana.generate.reproduction import reproduce
from nirvana.generate.request import SampleRequest
from nirvana.generate.sheet import axis, requests, sheet
from nirvana.modality.png import read_png, write_png
from nirvana.train.run import RunFolder
from tiny_run import make_run

INTERVAL = (0.2, 2.0)
"""Of the ratios inf, 3, 1, 1/3 that four steps begin at, those of the last two lie inside."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("sampling") / "pets"))


@pytest.fixture
def batches(model: Model) -> Iterator[list[int]]:
    """The number of items of every network call."""
    seen: list[int] = []
    handle = model.parts.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


def walked(model: Model, **changes: Any) -> list[Tensor]:
    """x after every step of a request of two pictures of one batch."""
    request = model.request(label="dog", n=2, seed=3, **{"steps": 4, "guidance": 3.0, **changes})
    return [preview.x for preview in model.stream(request)]


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_one_network_call_a_step_and_one_of_the_conditioner_a_class(
    model: Model, batches: list[int], monkeypatch: pytest.MonkeyPatch, guidance: float, solver: str
) -> None:
    conditioned: list[int] = []
    forward = LabelConditioner.forward

    def counted(self: LabelConditioner, index: Tensor, *rest: Any) -> Any:
        conditioned.append(len(index))
        return forward(self, index, *rest)

    monkeypatch.setattr(LabelConditioner, "forward", counted)
    model.generate(label="dog", n=5, batch=2, steps=4, guidance=guidance, solver=solver)
    branches = 1 if guidance in (0.0, 1.0) else 2
    assert batches == [branches * n for n in (2, 2, 1) for _ in range(4)]
    assert conditioned == [1]  # the class is encoded once


def test_an_interval_skips_the_calls_it_says(model: Model, batches: list[int]) -> None:
    walked(model, guidance_interval=INTERVAL)
    assert batches == [2, 2, 4, 4]


def test_an_interval_is_plain_guidance_inside_and_the_plain_model_outside(model: Model) -> None:
    found, guided, plain = (
        walked(model, guidance_interval=INTERVAL),
        walked(model, guidance_interval=(0.0, 1e9)),
        walked(model, guidance=1.0),
    )
    assert all(torch.equal(a, b) for a, b in zip(found[:2], plain[:2], strict=True))
    # From the same x on, the guided steps are those of guidance without an interval.
    levels, sampler = model.sampler().levels(model.request(steps=4)), model.sampler()
    for w, interval in ((3.0, INTERVAL), (3.0, None)):
        request = model.request(label="dog", n=2, steps=4, guidance=w, guidance_interval=interval)
        denoiser, cond = sampler.steering(request).conditioned(range(2))
        x0 = denoiser(found[1], levels[2], cond, levels[3]).x0
        assert torch.equal(found[2], _moved(found[1], x0, levels[2], levels[3]))
    assert not torch.equal(found[3], plain[3]) and not torch.equal(found[3], guided[3])
    # Pure noise lies outside of every interval, so even (0, 1e9) is the plain model at the first step alone.
    assert torch.equal(guided[0], plain[0]) and not torch.equal(guided[1], plain[1])
    assert torch.equal(walked(model)[-1], walked(model, guidance_interval=None)[-1])


def _moved(x: Tensor, x0: Tensor, now: Any, nxt: Any) -> Tensor:
    c_x = float(nxt.sigma / now.sigma)
    return c_x * x + float(nxt.alpha - nxt.sigma / now.sigma * now.alpha) * x0


def test_bfloat16_is_of_the_network_alone_and_cast_once(model: Model) -> None:
    net = model.parts.denoiser.net
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found, exact = walked(model, precision="bfloat16"), walked(model)
    assert all(x.dtype == torch.float32 for x in found)
    difference = float((found[-1] - exact[-1]).abs().max())
    assert 0 < difference < 0.2
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    sampler = model.sampler()
    once, again, full = (
        sampler._denoiser(model.request(steps=steps, precision=precision)).net
        for steps, precision in ((2, "bfloat16"), (3, "bfloat16"), (3, "float32"))
    )
    assert once is again and full is net
    assert {p.dtype for p in once.parameters()} == {torch.bfloat16}


def test_bfloat16_leaves_the_frequencies_of_the_noise_code_alone(model: Model) -> None:
    """In bfloat16 a code of 1000 has steps of 4, and its frequencies three digits."""
    net = model.parts.denoiser.net
    cast = in_bfloat16(net)
    buffers = dict(cast.named_buffers())
    assert buffers and all(torch.equal(buffers[name], value) for name, value in net.named_buffers())
    assert all(torch.equal(p, q.bfloat16()) for p, q in zip(cast.parameters(), net.parameters(), strict=True))


class Exported(nn.Module):
    """A network without parameters, as an engine's is: that of the run, times a factor."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.run = [net]
        self.slots = net.slots
        self.factor = factor

    def forward(self, x: Tensor, noise: Tensor, cond: Any) -> Tensor:
        return self.factor * self.run[0](x, noise, cond)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, model: Model) -> list[tuple[Path, str, str]]:
    """What engines were loaded for; "onnx" is exact, "openvino" is off."""
    loaded: list[tuple[Path, str, str]] = []
    net = model.parts.denoiser.net

    def load_engine(run: RunFolder, engine: str, weights_sha256: str) -> nn.Module:
        loaded.append((run.path, engine, weights_sha256))
        if engine == "aoti":
            raise Refused(f"{run.path} has no engine 'aoti' yet; run `nirvana export`")
        return Exported(net, 1.0 if engine == "onnx" else 0.5)

    monkeypatch.setattr(export, "load_engine", load_engine)
    return loaded


def test_an_engine_takes_the_place_of_the_network(tmp_path: Path, engines: list[Any], model: Model) -> None:
    fresh = load(make_run(tmp_path / "pets"))
    exact, exported, other = (walked(fresh, engine=engine)[-1] for engine in ("torch", "onnx", "openvino"))
    assert torch.equal(exact, exported) and not torch.equal(exact, other)
    sha256 = fresh.origin(SampleRequest()).sha256
    walked(fresh, engine="onnx")
    assert engines == [(fresh.run.path, "onnx", sha256), (fresh.run.path, "openvino", sha256)]
    with pytest.raises(Refused, match="no engine 'aoti' yet"):
        fresh.request(engine="aoti")


def test_an_engine_is_kept_in_the_picture_and_used_again(tmp_path: Path, engines: list[Any]) -> None:
    run = make_run(tmp_path / "pets")
    made = load(run).generate(n=2, engine="openvino", guidance_interval=INTERVAL)
    paths = made.save(tmp_path / "out")
    saved: Any = read_png(paths[0])[1]["request"]
    assert (saved["engine"], saved["guidance_interval"]) == ("openvino", [0.2, 2.0])
    assert reproduce(paths[1]).same_bytes
    assert [engine for _, engine, _ in engines] == ["openvino", "openvino"]
    assert not np.array_equal(made.array, load(run).generate(n=2, guidance_interval=INTERVAL).array)


def test_sheets_vary_the_new_fields(model: Model, engines: list[Any]) -> None:
    base = model.request(label="dog", steps=4, guidance=3.0)
    made = sheet(model, base, axis("guidance_interval=none,0.2:2"), axis("precision=float32,bfloat16"))
    alone = model.generate(label="dog", steps=4, guidance=3.0, batch=base.batch, guidance_interval=INTERVAL)
    assert np.array_equal(made.array[0, 1], alone.array)
    assert not np.array_equal(made.array[0, 0], made.array[0, 1])
    assert [r.engine for r in requests(model, base, axis("engine=torch,onnx"))[0]] == ["torch", "onnx"]
    for wrong, message in (
        ("guidance_interval=2", "two ratios"),
        ("guidance_interval=2:1", "must rise"),
        ("precision=int8", "unknown precision"),
    ):
        with pytest.raises(Refused, match=message):
            requests(model, base, axis(wrong))


def test_a_model_without_labels_takes_no_interval(tmp_path: Path) -> None:
    from tiny_run import spec

    plain = load(make_run(tmp_path / "plain", spec(names=())))
    with pytest.raises(Refused, match="nothing to guide"):
        plain.request(guidance_interval=INTERVAL)


@pytest.mark.parametrize("version", [1, 2])
def test_a_picture_of_an_old_version_is_reproduced_byte_for_byte(model: Model, tmp_path: Path, version: int) -> None:
    request = SampleRequest(labels=("cat", "dog"), n=3, steps=2, batch=2, guidance=2.0, version=version)
    made = model.gather(request, model.stream(request))
    old = Images(made.array, request, made.origin)
    record: Any = old.metadata(1)
    since = {1: {"guidance_interval", "precision", "engine"}, 2: set[str]()}[version]
    assert record["request"].keys() & {*since, "rule", "negative", "autoguidance", "classifier"} == set()
    assert record["request"]["version"] == version
    path = tmp_path / "old.png"
    write_png(path, made.array[1], record)
    again = reproduce(path)
    assert again.same_bytes and again.difference == 0


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The options of every compilation; the network stays as it is (the checked types of these tests take minutes)."""
    asked: list[dict[str, object]] = []

    def compile(net: nn.Module, **options: object) -> nn.Module:
        asked.append(options)
        return net

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def test_a_compiled_model_is_compiled_once_and_its_pictures_say_so(
    tmp_path: Path, model: Model, compilations: list[Any]
) -> None:
    compiled = load(model.run.path, compile=True)
    made = compiled.generate(label="dog", n=3, batch=2, steps=2)
    assert np.array_equal(made.array, model.generate(label="dog", n=3, batch=2, steps=2).array)
    assert len(compilations) == 1
    path = made.save(tmp_path / "out")[0]
    saved: Any = read_png(path)[1]["origin"]
    assert saved["machine"]["compiled"] is True
    assert "compiled" not in model.origin(made.request).machine
    assert reproduce(path).same_bytes
    assert len(compilations) == 2
    with pytest.raises(Refused, match="compiled at its export"):
        compiled.request(engine="onnx")


def test_what_a_compiled_network_returns_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph gives the same memory at every call, as this one does. Through torch.compile, without its code."""

    class Reused(nn.Module):
        slots: frozenset[str] = frozenset()

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("memory", torch.zeros(2, 3))

        def forward(self, x: Tensor, noise: Tensor, cond: Any) -> Tensor:
            return self.memory.copy_(x)

    monkeypatch.setattr(network, "BACKEND", "eager")
    net = Compiled(Reused(), torch.device("cpu"))
    with torch.inference_mode():
        first = net(torch.ones(2, 3), torch.zeros(2), {})
        net(torch.full((2, 3), 7.0), torch.zeros(2), {})
    assert torch.equal(first, torch.ones(2, 3))


@pytest.mark.parametrize(("device", "mode", "dynamic"), [("cuda", "reduce-overhead", False), ("cpu", None, None)])
def test_only_a_gpu_gets_graphs_and_is_told_where_a_step_begins(
    monkeypatch: pytest.MonkeyPatch, compilations: list[Any], device: str, mode: str | None, dynamic: bool | None
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))

    class Identity(nn.Module):
        slots: frozenset[str] = frozenset()

        def forward(self, x: Tensor, noise: Tensor, cond: Any) -> Tensor:
            return x

    net = Compiled(Identity(), torch.device(device))
    assert compilations == [{"backend": "inductor", "mode": mode, "dynamic": dynamic}]
    x = torch.ones(2, 3)
    assert net(x, torch.zeros(2), {}).data_ptr() != x.data_ptr()
    assert len(begun) == (device == "cuda")
