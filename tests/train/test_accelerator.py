"""The loop as an accelerator would run it: on a played device that counts the host's waits, and in bfloat16."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nirvana.data import open_data
from nirvana.files import Json
from nirvana.generate.family import model_parts
from nirvana.recipes.image import task_of
from nirvana.recipes.recipe import RECIPES, Facts
from nirvana.recipes.task import DiffusionTask, PictureBatches
from nirvana.train import device as devices
from nirvana.train import loop
from nirvana.train.checkpoint import load
from nirvana.train.device import seeded, sent
from nirvana.train.events import StepDone
from nirvana.train.metrics import PhaseStep, Window
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from nirvana.train.task import Position
from train.remote import DEVICE, Remote, played_device, settle

CPU = torch.device("cpu")
PLAN = TrainPlan(images=10**6, batch=4, accumulate=2, lr=1e-2, read_every=2, ema=(0.1,), precision="float32")
"""So long that after the start only readings are due for a while."""


def pictures_task(name: str = "flow", on: torch.device = CPU, *, compile: bool = False) -> Any:
    """A very small model of the digits, the same each time."""
    recipe = RECIPES[name](Facts(8, 1, tuple("0123456789")))
    network = dict(cast("dict[str, Json]", recipe.model["network"]))
    small: dict[str, Json] = {
        "width": 8,
        "multipliers": [1],
        "attention": [0],
        "blocks": 1,
        "depth": 1,
        "head_width": 8,
    }
    network |= {key: value for key, value in small.items() if key in network}
    with seeded(CPU, "weights"):
        parts = model_parts({**recipe.model, "network": network})
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parts.modules().parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.02, generator=rng))
    if on == DEVICE:
        settle(parts.modules())
    return task_of(recipe, parts, strata=4, compile=compile)


def steps(path: Path, task: DiffusionTask, plan: TrainPlan, count: int) -> tuple[RunFolder, list[StepDone]]:
    """The first `count` steps of a run, which is then stopped."""
    run = RunFolder.create(path, {}, plan, {}, {}, "")
    events = loop.train(task, PictureBatches(open_data("digits"), plan.seed, flip=True), plan, run)
    found: list[StepDone] = []
    while len(found) < count:
        event = next(events)
        if isinstance(event, StepDone):
            found.append(event)
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    return run, found


# No waiting


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_loss_makes_the_host_wait(name: str) -> None:
    batch, position = PictureBatches(open_data("digits"), 0, flip=True).batch(range(4)), Position(0, range(4), 0)
    here = pictures_task(name)
    expected = [float(here.loss(phase, batch, position).total.detach()) for phase in here.phases]
    with played_device() as played:
        task = pictures_task(name, DEVICE)
        totals = [task.loss(phase, batch, position).total for phase in task.phases]
        assert played.waits == {}
        assert [float(total.detach()) for total in totals] == pytest.approx(expected, rel=1e-4)


def test_the_host_waits_for_the_device_only_to_read_and_then_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name that the played device goes by has no autocast; in float32 it is off in any case.
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())
    waits: list[dict[str, int]] = []
    with played_device() as played:
        run = RunFolder.create(tmp_path / "run", {}, PLAN, {}, {}, "")
        batches = PictureBatches(open_data("digits"), PLAN.seed, flip=True)
        events = loop.train(pictures_task(on=DEVICE), batches, PLAN, run)
        for event in events:
            if isinstance(event, StepDone):
                waits.append(dict(played.waits))
                played.waits.clear()
                if len(waits) == 4:
                    break
        events.close()  # pyright: ignore[reportAttributeAccessIssue]
    # What is read after the second step shows before the third. Before the first one a checkpoint is written.
    assert waits[1:] == [{}, {"read": 1}, {}]
    assert set(waits[0]) == {"read"}
    _, there = steps(tmp_path / "cpu", pictures_task(), PLAN, 3)
    line: Any = run.metrics()[0]
    assert there[-1].loss is not None
    assert line["loss"]["diffusion"] == pytest.approx(there[-1].loss["diffusion"], rel=1e-4)


def test_the_played_device_counts_what_makes_a_host_wait() -> None:
    with played_device() as played:
        x = sent(torch.arange(4.0), DEVICE)
        assert isinstance(x, Remote) and x.device == DEVICE
        y = (2 * x).square().sum() + torch.ones((), device=DEVICE)
        assert played.waits == {}
        assert float(y) == 57.0
        torch.zeros(4).to(DEVICE)
        x.copy_(torch.ones(4))
        assert x.cpu().tolist() == [1.0] * 4
        assert bool((x > 0).all())
        x.nonzero()
        assert played.waits == {"_local_scalar_dense": 2, "blocking transfer": 2, "read": 1, "nonzero": 1}
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(4)


def test_a_window_is_fetched_in_one_transfer_and_keeps_every_number() -> None:
    def step(at: int, place: Any) -> dict[str, PhaseStep]:
        values = [torch.tensor(v, dtype=torch.float32) for v in (at + 0.1, at + 0.2, at + 0.3)]
        each = [torch.tensor([at + 0.5, float("nan") if at == 1 else 1.0]), torch.tensor([at + 1.5])]
        lam = [torch.tensor([0.25, 1.75], dtype=torch.float64), torch.tensor([-3.5], dtype=torch.float64)]
        loss, norm, term = map(place, values)
        return {"a": PhaseStep(0.1, loss, norm, {"term": term}, [place(x) for x in each], lam)}

    def read(place: Any) -> list[Any]:
        window = Window()
        for at in range(3):
            window.add(range(3 * at, 3 * at + 3), step(at, place))
        return window.read()

    plain = read(lambda tensor: tensor)
    assert [record.phases["a"].loss for record in plain] == [float(torch.tensor(at + 0.1)) for at in range(3)]
    assert plain[1].phases["a"].suspects == [4] and plain[0].phases["a"].suspects == []
    assert plain[0].phases["a"].levels == {"0": (1.0, 0.5), "1": (1.0, 1.0), "-4": (1.0, 1.5)}
    with played_device() as played:
        assert read(lambda tensor: sent(tensor, DEVICE)) == plain
        assert played.waits == {"read": 1}


class Ran(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_update_and_averages_are_single_operations(tmp_path: Path) -> None:
    with Ran() as ran:
        steps(tmp_path / "run", pictures_task(), PLAN, 1)
    assert {"_fused_adamw_", "_foreach_lerp_"} <= ran.names
    assert not {"lerp_", "addcdiv_", "_foreach_addcdiv_"} & ran.names


def test_cuda_fetches_from_page_locked_memory_and_mps_at_once() -> None:
    calls: list[Any] = []

    class Spy(torch.Tensor):
        def pin_memory(self, device: Any = None) -> Any:
            calls.append("pinned")
            return self

        def to(self, *args: Any, **options: Any) -> Any:
            calls.append((args[0].type, options["non_blocking"]))
            return self

    for name in ("cuda:1", "mps", "cpu"):
        sent(torch.ones(1).as_subclass(Spy), torch.device(name))
    assert calls == ["pinned", ("cuda", True), ("mps", False), ("cpu", True)]


# bfloat16


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda _device: True)
    losses = {}
    for precision in ("float32", "bfloat16"):
        plan = dataclasses.replace(PLAN, precision=precision)
        task = pictures_task()
        run, found = steps(tmp_path / precision, task, plan, 3)
        assert found[-1].loss is not None
        losses[precision] = found[-1].loss["diffusion"]
        checkpoint = run.latest()
        assert checkpoint is not None
        kept = {**load(checkpoint, "task.safetensors"), **load(checkpoint, "optimizer.safetensors")}
        assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


# torch.compile

COMPILED = """
import functools, sys
from pathlib import Path
import torch

torch.nn.Module.compile = functools.partialmethod(torch.nn.Module.compile, backend="eager")
from train.test_accelerator import PLAN, pictures_task, steps

found = []
for compile in (False, True):
    task = pictures_task(compile=compile)
    _, done = steps(Path(sys.argv[1]) / str(compile), task, PLAN, 3)
    found.append((task.state_dict(), done[-1].loss))
(plain, before), (fast, after) = found
assert task.parts.denoiser.net._compiled_call_impl is not None
assert before == after is not None and list(plain) == list(fast)
assert all(torch.equal(plain[name], fast[name]) for name in plain)
"""


def test_compiling_changes_no_name_and_no_number(tmp_path: Path) -> None:
    # In a process of its own: the compiler cannot see through the checks that the tests put around every call.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
