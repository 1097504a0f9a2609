"""Which proofs are made, of what, and how: one after the other or in several processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from types import MappingProxyType

import torch

from nirvana.diffusion import GRIDS, PARAMETERIZATIONS, Tabulated
from nirvana.diffusion.guidance import RULES
from nirvana.errors import unknown
from nirvana.verify import distribution, endpoints, guided, inpainting, moments, oracle, order, weak
from nirvana.verify.finding import Finding
from nirvana.verify.settings import SCHEDULES
from nirvana.verify.subject import solver
from nirvana.verify.walks import Broken

QUICK_SCHEDULES = ("rectified-flow", "linear-vp", "ve")
"""Three that differ in everything: a straight line from pure noise, a curve of unit norm, and a scale that explodes."""

SAMPLED = "cosine"
"""The schedule on which samples are compared with draws: what a schedule does is in the orders."""

INPAINTED = 32
"""Steps of a walk that inpaints."""


@dataclass(frozen=True)
class Effort:
    """How far a proof goes: the most steps a deterministic order is measured with, and a stochastic one; seeds; ...

    early: an order is taken as soon as its slopes agree. whole: the most steps from noise to data, where order 1 does.
    inpainted: the solvers of inpainting; inner: its steps at each level; cases: of its calibration;
    drawn: draws of the law of a mixture.
    """

    early: bool
    steps: int
    draws: int
    whole: int
    seeds: int
    counts: tuple[int, ...]
    spacings: tuple[str, ...]
    inpainted: tuple[str, ...]
    inner: tuple[int, ...]
    cases: int
    drawn: int


FULL = Effort(
    early=False,
    steps=2048,
    draws=1024,
    whole=512,
    seeds=200,
    counts=endpoints.COUNTS,
    spacings=("uniform", "uneven", "quadratic", "lam"),
    inpainted=("ddim", "dpmpp-2m", "heun", "ddpm", "euler-ancestral", "heun-churn"),
    inner=(1, 2, 4, 8, 16),
    cases=4000,
    drawn=50_000,
)
QUICK = Effort(
    early=True,
    steps=2048,
    draws=1024,
    whole=256,
    seeds=20,
    counts=tuple(n for n in endpoints.COUNTS if n < 100),
    spacings=("uneven",),
    inpainted=("ddim", "euler-ancestral"),
    inner=(1, 4, 16),
    cases=1000,
    drawn=3_000,
)


@dataclass(frozen=True)
class Job:
    """One proof: a name of PROOFS, its subject, the schedule ("" for none), and whether it is a quick one."""

    proof: str
    subject: str
    schedule: str = ""
    quick: bool = False

    @property
    def effort(self) -> Effort:
        """QUICK or FULL."""
        return QUICK if self.quick else FULL


def _orders(job: Job) -> Iterator[Finding]:
    """Deterministic solvers against trajectories, stochastic ones in their moments."""
    of, effort = solver(job.subject), job.effort
    where = of, job.subject, job.schedule
    for spacing in effort.spacings:
        if of.deterministic:
            yield order.primed_order(*where, spacing, effort.steps, early=effort.early)
        else:
            yield moments.moments(*where, spacing, effort.draws, early=effort.early)
            found = weak.weak_order(*where, spacing, effort.draws, early=effort.early)
            yield from [found] if found else []
    if of.deterministic:
        yield order.started_order(*where, "uneven", effort.steps, early=effort.early)
        yield order.round_trip(*where, "uneven", effort.steps, early=effort.early)
        yield order.full_range(*where, effort.whole, early=effort.early)
    else:
        yield moments.full_range(*where, effort.whole, early=effort.early)


def _endpoints(job: Job) -> Iterator[Finding]:
    of = solver(job.subject)
    yield endpoints.endpoints(of, job.subject, job.schedule, job.effort.counts)
    yield endpoints.refusals(of, job.subject, job.schedule)


_POWERED = ("ddim", "euler-ancestral")
"""What a quick proof measures the power of the tests with: it is theirs, and hardly depends on the solver."""


def _distribution(job: Job) -> Iterator[Finding]:
    of = solver(job.subject)
    if of.order == 0:
        return  # it does not claim to converge to the distribution
    yield distribution.distribution(of, job.subject, job.schedule, job.effort.seeds)
    if not job.quick or job.subject in _POWERED:
        yield distribution.power(of, job.subject, job.schedule, 20)


def _grids(job: Job) -> Iterator[Finding]:
    if job.subject == "trailing" and not isinstance(SCHEDULES[job.schedule](), Tabulated):
        return  # it takes the points of a table
    yield endpoints.grid(job.subject, GRIDS[job.subject](), job.schedule, job.effort.counts)


def _parameterizations(job: Job) -> Iterator[Finding]:
    for prove in (oracle.conversion, oracle.scale_property, oracle.network):
        yield prove(job.subject)


def _ground(job: Job) -> Iterator[Finding]:
    """What the proof of solvers stands on."""
    for name in ("gaussian", "mixture", "near-singular", "dataset"):
        yield oracle.score(name)
    for name in ("gaussian", "mixture"):
        yield oracle.reference(name)
    yield distribution.calibration(job.effort.seeds)


def _guidance(job: Job) -> Iterator[Finding]:
    del job
    for name, rule in RULES.items():
        if name not in ("cfg++", "threshold"):  # w = 1 is another guidance there, and here x0 is bounded at any w
            yield guided.one_is_strong(name, rule(1.0))
    for w in (0.0, 0.4, 2.5):
        yield guided.closed_form(w)
    for w in (0.0, 0.6, 1.0):
        yield guided.plus_plus(w)
    yield guided.interval_skips(0.3, 4.0)


def _inpainting(job: Job) -> Iterator[Finding]:
    if job.subject in inpainting.GAUSSIANS:
        yield from inpainting.moments(job.subject, INPAINTED, job.effort.inner, job.effort.inpainted)
    elif job.subject in job.effort.inpainted:
        yield from inpainting.calibration((job.subject,), INPAINTED, job.effort.cases, inpainting.CALIBRATED)
    else:
        yield from inpainting.mixture_moments(INPAINTED, job.effort.inner, job.effort.inpainted, job.effort.drawn)


def _schedules(job: Job) -> Iterator[Finding]:
    yield oracle.schedule(job.schedule)


PROOFS: Mapping[str, Callable[[Job], Iterator[Finding]]] = MappingProxyType(
    {
        "ground": _ground,
        "parameterization": _parameterizations,
        "schedule": _schedules,
        "grid": _grids,
        "guidance": _guidance,
        "inpainting": _inpainting,
        "endpoints": _endpoints,
        "order": _orders,
        "distribution": _distribution,
    }
)
"""Name -> what makes its findings."""


def jobs(solvers: Sequence[str], schedules: Sequence[str], *, quick: bool, ours: bool) -> list[Job]:
    """All proofs of `solvers` on `schedules`, and where `ours` those of everything else; the long ones first.

    Raises Refused for an unknown solver or schedule, and for a user's solver that is none.
    """
    for name in schedules:
        if name not in SCHEDULES:
            raise unknown("schedule", name, SCHEDULES)
    for name in solvers:
        solver(name)
    made = [Job("distribution", name, SAMPLED, quick) for name in solvers]
    made += [Job(proof, name, s, quick) for proof in ("order", "endpoints") for name in solvers for s in schedules]
    if ours:
        made += [Job("ground", "oracles", quick=quick), Job("guidance", "guidance", quick=quick)]
        calibrated = (QUICK if quick else FULL).inpainted
        made += [
            Job("inpainting", name, quick=quick) for name in (*inpainting.GAUSSIANS, inpainting.MIXTURE, *calibrated)
        ]
        made += [Job("parameterization", name, quick=quick) for name in PARAMETERIZATIONS]
        made += [Job("schedule", name, name, quick) for name in schedules]
        made += [Job("grid", name, schedule, quick) for name in GRIDS for schedule in schedules]
    return made


def run(job: Job) -> list[Finding]:
    """What `job` finds. What a solver raises, or does against its protocol, is a finding that failed."""
    found: list[Finding] = []
    try:
        found.extend(PROOFS[job.proof](job))
    except Broken as fault:
        found.append(Finding(job.proof, job.subject, job.schedule, False, str(fault)))
    return found


def run_all(todo: Sequence[Job], workers: int) -> Iterator[list[Finding]]:
    """The findings of every job as they come, by `workers` processes; one of them needs no other process."""
    if workers == 1:
        yield from map(run, todo)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_alone, initargs=(os.getcwd(),)) as pool:
        try:
            for done in as_completed([pool.submit(run, job) for job in todo]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(folder: str) -> None:
    """A process among others: one thread, and the user's modules are found as in the first process."""
    torch.set_num_threads(1)
    if folder not in sys.path:
        sys.path.insert(0, folder)
