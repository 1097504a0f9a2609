"""The proof: solvers, schedules, conversions and guidance against exact answers. `nirvana verify` runs it."""

from __future__ import annotations

from nirvana.verify.finding import Finding
from nirvana.verify.plan import PROOFS, Job, jobs, run, run_all
from nirvana.verify.problems import PROBLEMS, Problem

__all__ = ["PROBLEMS", "PROOFS", "Finding", "Job", "Problem", "jobs", "run", "run_all"]
