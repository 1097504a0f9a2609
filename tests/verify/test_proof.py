"""The quick proof, whole: every solver on three schedules, and what they stand on. `make verify` does the rest."""

from __future__ import annotations

import pytest

from conftest import Unchecked
from nirvana.diffusion import GRIDS, PARAMETERIZATIONS
from nirvana.diffusion.named import SOLVERS
from nirvana.verify import Job, run
from nirvana.verify.inpainting import GAUSSIANS, MIXTURE
from nirvana.verify.plan import FULL, QUICK, QUICK_SCHEDULES, jobs
from nirvana.verify.settings import SCHEDULES

JOBS = jobs(tuple(SOLVERS), QUICK_SCHEDULES, quick=True, ours=True)


def test_every_solver_on_three_schedules_is_in_it() -> None:
    assert len(QUICK_SCHEDULES) == 3
    for proof in ("order", "endpoints"):
        assert {(job.subject, job.schedule) for job in JOBS if job.proof == proof} == {
            (solver, schedule) for solver in SOLVERS for schedule in QUICK_SCHEDULES
        }
    assert {job.subject for job in JOBS if job.proof == "distribution"} == set(SOLVERS)
    assert {job.subject for job in JOBS if job.proof == "parameterization"} == set(PARAMETERIZATIONS)
    assert {job.subject for job in JOBS if job.proof == "grid"} == set(GRIDS)
    assert {job.subject for job in JOBS if job.proof == "inpainting"} == {*GAUSSIANS, MIXTURE, *QUICK.inpainted}


def test_the_full_proof_is_the_product() -> None:
    full = jobs(tuple(SOLVERS), tuple(SCHEDULES), quick=False, ours=True)
    assert sum(job.proof == "order" for job in full) == len(SOLVERS) * len(SCHEDULES)
    assert FULL.seeds == 200 and {999, 1000} <= set(FULL.counts) and len(FULL.spacings) >= 4


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.proof}-{job.subject}-{job.schedule}")
def test_it_passes(job: Job, unchecked: Unchecked) -> None:
    found = unchecked(run, job)
    assert [f"{f.proof} of {f.subject} on {f.setting}: {f.detail}" for f in found if not f.passed] == []
