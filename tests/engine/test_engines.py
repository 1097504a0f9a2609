"""Networks in other engines say what PyTorch says, at any batch size, in memory of their own."""

from __future__ import annotations

import ast
import copy
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nirvana.engine
import nirvana.engine.openvino
from nirvana.diffusion.denoiser import NOISE_CODES, Preconditioned
from nirvana.diffusion.level import Level
from nirvana.diffusion.prediction import Flow
from nirvana.engine import ENGINES, EngineNet, Inputs
from nirvana.engine.signals import signal_stack
from nirvana.errors import Refused
from nirvana.nn import UNetConfig
from nirvana.nn.attention import CrossAttention, SelfAttention
from nirvana.nn.embedding import Embedding
from nirvana.nn.layers import Downsample, Upsample, conv, shuffle, unshuffle
from nirvana.nn.unet import ResidualBlock

SIZES = {"vector": (3,), "tokens": (2, 3), "tokens_mask": (2,), "concat": (1, 8, 8)}
INPUTS = Inputs((1, 8, 8), SIZES)
Call = tuple[Tensor, Tensor, dict[str, Tensor]]


class Layers(nn.Module):
    """Every layer of the U-Net once, and every slot: tracing costs by the operation."""

    slots = frozenset(SIZES)

    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding(4, 8, 3)
        self.stem = conv(2, 8, 8)
        self.down = Downsample(2, 8, 8)
        self.block = ResidualBlock(UNetConfig(1, 1, width=2, group_width=2), 8, 4, 8)
        self.cells = SelfAttention(4, 2, 2)
        self.tokens = CrossAttention(4, 3, 2, 2)
        self.up = Upsample(2, 4, 4)
        self.out = conv(2, 12, 4)

    def forward(self, x: Tensor, noise: Tensor, cond: dict[str, Tensor]) -> Tensor:
        skip = self.stem(unshuffle(torch.cat([x, cond["concat"]], dim=1), 2))
        hidden = self.cells(self.block(self.down(skip), self.embedding(noise, cond["vector"])))
        hidden = self.up(self.tokens(hidden, cond["tokens"], cond["tokens_mask"]))
        return shuffle(self.out(torch.cat([hidden, skip], dim=1)), 2)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alive(net: nn.Module) -> nn.Module:
    """`net` with random parameters everywhere: some layers start as 0, and 0 is easy to export."""
    for number, parameter in enumerate(net.requires_grad_(False).parameters()):
        parameter.normal_(0, 0.3, generator=rng(number))
    return net.eval()


def call(batch: int, seed: int = 0, inputs: Inputs = INPUTS) -> Call:
    g = rng(seed)
    cond = {name: torch.randn(batch, *sizes, generator=g) for name, sizes in inputs.cond.items()}
    if "tokens_mask" in cond:
        cond["tokens_mask"] = cond["tokens_mask"] > 0
    return torch.randn(batch, *inputs.x, generator=g), torch.rand(batch, generator=g) * 1000, cond


def exact(net: nn.Module, x: Tensor, noise: Tensor, cond: dict[str, Tensor]) -> Tensor:
    wide = {name: value.double() if value.is_floating_point() else value for name, value in cond.items()}
    return copy.deepcopy(net).double()(x.double(), noise.double(), wide)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return alive(Layers())


@pytest.fixture(scope="module", params=["openvino", "onnx"])
def engine_net(request: pytest.FixtureRequest, net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> EngineNet:
    folder = tmp_path_factory.mktemp(request.param)
    engine = ENGINES[request.param]
    engine.export(net, INPUTS, folder, torch.float32)
    return EngineNet(INPUTS, engine.load(folder, torch.float32))


def test_every_input_matters_to_the_network(net: nn.Module) -> None:
    x, noise, cond = call(2)
    cond["tokens_mask"][:] = torch.tensor([True, False])
    plain = net(x, noise, cond)
    assert float(plain.std()) > 0.1
    others = [net(x + 1, noise, cond), net(x, noise / 2, cond)]
    others += [net(x, noise, {**cond, name: v.roll(1, -1)}) for name, v in cond.items()]
    assert min(float((other - plain).abs().max()) for other in others) > 1e-2


def test_an_engine_says_what_the_network_says_at_any_batch_size(net: nn.Module, engine_net: EngineNet) -> None:
    for batch in (1, 2, 3, 16, 1):
        x, noise, cond = call(batch, seed=batch)
        shuffled = dict(reversed(cond.items()))
        expected = exact(net, x, noise, cond)
        output = engine_net(x, noise, shuffled)
        assert output.dtype == torch.float32
        assert float((output - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_what_an_engine_gave_is_not_overwritten_by_its_next_call(engine_net: EngineNet) -> None:
    first = engine_net(*call(2, seed=1))
    before = first.clone()
    engine_net(*call(2, seed=2))
    assert torch.equal(first, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_takes_the_place_of_the_network(net: nn.Module, engine_net: EngineNet, dtype: torch.dtype) -> None:
    denoiser = Preconditioned(net, Flow(), native="sum", c_in="edm", c_noise=NOISE_CODES["flow_time"])
    driven = Preconditioned(engine_net, Flow(), native="sum", c_in="edm", c_noise=NOISE_CODES["flow_time"])
    x, _, cond = call(3)
    # The rows of a null condition share their memory, and a picture may lie in memory in another order.
    cond["vector"] = cond["vector"][:1].expand(3, -1)
    x, level = x.to(dtype).contiguous(memory_format=torch.channels_last), Level.from_lam(torch.tensor([-4.0, 0.0, 3.0]))
    with torch.inference_mode():
        expected, found = denoiser(x, level, cond).x0, driven(x, level, cond).x0
    assert found.dtype == expected.dtype == dtype
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert not list(engine_net.parameters())


class Tiny(nn.Module):
    """The least network with a condition."""

    slots = frozenset({"vector"})

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor, noise: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return (self.mix(x.flatten(1) + cond["vector"]).sin() * noise[:, None]).view_as(x)


def test_aoti_compiles_a_network_for_any_batch_size(tmp_path: Path) -> None:
    net, inputs = alive(Tiny()), Inputs((1, 2, 2), {"vector": (4,)})
    ENGINES["aoti"].export(net, inputs, tmp_path, torch.float32)
    compiled = EngineNet(inputs, ENGINES["aoti"].load(tmp_path, torch.float32))
    for batch in (1, 3, 16):
        x, noise, cond = call(batch, batch, inputs)
        # Compiled code reads memory in the order it was compiled for.
        x, cond = x.transpose(2, 3), {"vector": cond["vector"][:1].expand(batch, -1)}
        expected = exact(net, x, noise, cond)
        assert float((compiled(x, noise, cond) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_aoti_without_a_compiler_says_what_to_install(net: nn.Module, tmp_path: Path) -> None:
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(Refused, match=r"needs a C\+\+ compiler.*install g\+\+"),
    ):
        ENGINES["aoti"].export(net, INPUTS, tmp_path, torch.float32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("engine", "missing"),
    [("openvino", "openvino"), *(("onnx", name) for name in ("onnx", "onnxscript", "onnxruntime"))],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, engine: str, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Refused, match=rf"needs the package '{missing}'.*pip install 'nirvana\[engine\]'"):
        ENGINES[engine].version()


def test_packages_are_imported_only_in_functions_and_openvino_reports_to_nobody() -> None:
    for file in Path(nirvana.engine.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "nirvana" in ast.unparse(node) or not {"onnx", "openvino"} & set(ast.unparse(node).split())
    ENGINES["openvino"].version()
    assert sys.modules["openvino_telemetry"] is None
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__.endswith("telemetry_stub")


@pytest.mark.parametrize(("precision", "hint"), [(torch.float32, "f32"), (torch.bfloat16, "bf16")])
def test_engines_run_with_the_threads_of_pytorch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: torch.dtype, hint: str
) -> None:
    import onnxruntime

    seen: dict[str, Any] = {}

    class Core:
        def read_model(self, path: Path) -> Path:
            return path

        def compile_model(self, model: Path, device: str, settings: dict[str, Any]) -> None:
            seen.update(settings, model=model, device=device)
            raise InterruptedError

    def session(path: str, options: Any, providers: list[str]) -> None:
        seen["onnx"] = (path, options.intra_op_num_threads, providers)
        raise InterruptedError

    monkeypatch.setattr(nirvana.engine.openvino._openvino(), "Core", Core)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for name in ("openvino", "onnx"):
        with pytest.raises(InterruptedError):
            ENGINES[name].load(tmp_path, precision)
    assert (seen["INFERENCE_NUM_THREADS"], seen["INFERENCE_PRECISION_HINT"], seen["device"]) == (5, hint, "CPU")
    assert seen["PERFORMANCE_HINT"] == "LATENCY"
    assert seen["model"] == tmp_path / "network.xml"
    assert seen["onnx"] == (str(tmp_path / "network.onnx"), 5, ["CPUExecutionProvider"])


def test_inputs_survive_json_and_keep_their_order() -> None:
    assert Inputs.from_json(INPUTS.to_json()) == INPUTS
    x, _, cond = call(2)
    assert Inputs.of(x, cond) == INPUTS
    scattered = Inputs((1, 8, 8), dict(reversed(SIZES.items())))
    assert scattered.names == INPUTS.names == ("x", "noise", "vector", "tokens", "tokens_mask", "concat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, noise, cond: (x[..., :4], noise, cond), r"x of shape \('b', 1, 8, 8\), it got \(2, 1, 8, 4\)"),
        (lambda x, noise, cond: (x, noise, {**cond, "tokens": cond["tokens"][:, :1]}), r"it got \(2, 1, 3\)"),
        (lambda x, noise, cond: (x, noise, {**cond, "vector": cond["vector"][:, :2]}), "vector of shape"),
        (lambda x, noise, cond: (x, noise, {**cond, "vector": cond["vector"][:1]}), r"it got \(1, 3\)"),
        (lambda x, noise, cond: (x, noise, {"vector": cond["vector"]}), "exported with the conditions"),
        (lambda x, noise, cond: (x, noise, {**cond, "pose": x}), "exported with the conditions"),
    ],
)
def test_what_was_not_exported_is_not_run(change: Callable[[Any, Any, Any], Any], message: str) -> None:
    net = EngineNet(INPUTS, lambda tensors: pytest.fail("the engine was called"))
    with pytest.raises(ValueError, match=message):
        net(*change(*call(2)))


def test_conditions_that_do_not_fit_the_network_are_not_exported(net: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"takes the conditions \['concat', 'tokens', 'tokens_mask', 'vector'\], not"):
        ENGINES["openvino"].export(net, Inputs((1, 8, 8), {"vector": (3,)}), tmp_path, torch.float32)
    with pytest.raises(ValueError, match=r"\['pose'\] cannot be exported"):
        Inputs((1, 8, 8), {"pose": (3,)})


@pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack(2) as Linux has it")
def test_openvino_leaves_signals_their_stack(tmp_path: Path) -> None:
    """Or a signal after the network is gone would be written to freed memory, and end the process."""
    engine, net = ENGINES["openvino"], Layers()
    engine.export(net, INPUTS, tmp_path, torch.float32)
    before = signal_stack()
    run = engine.load(tmp_path, torch.float32)
    after = signal_stack()
    assert (after.start, after.flags, after.bytes) == (before.start, before.flags, before.bytes)
    del run
    received: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, old)
    assert received == [signal.SIGUSR1]


class Plain(nn.Module):
    """A network without conditions, as one that is trained on pictures without labels."""

    slots: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return self.conv(x) * (1 + noise[:, None, None, None] + len(cond))


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_network_without_conditions(name: str, tmp_path: Path) -> None:
    net, inputs = alive(Plain()), Inputs((1, 8, 8), {})
    ENGINES[name].export(net, inputs, tmp_path, torch.float32)
    run = EngineNet(inputs, ENGINES[name].load(tmp_path, torch.float32))
    for batch in (1, 3):
        x, noise, cond = call(batch, batch, inputs)
        expected = exact(net, x, noise, cond)
        assert float((run(x, noise, cond) - expected).abs().max()) < 1e-5 * float(expected.abs().max())
