"""The check of a source before training: what is wrong, what training does about it, and a cleaned copy."""

from __future__ import annotations

from nirvana.data.doctor.diagnosis import Diagnosis, diagnose
from nirvana.data.doctor.findings import KINDS, Finding, Gravity
from nirvana.data.doctor.fix import check_fix, forbid_inside, write_fixed
from nirvana.data.doctor.page import page

__all__ = [
    "KINDS",
    "Diagnosis",
    "Finding",
    "Gravity",
    "check_fix",
    "diagnose",
    "forbid_inside",
    "page",
    "write_fixed",
]
