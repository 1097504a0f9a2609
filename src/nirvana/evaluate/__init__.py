"""What samples are worth: how far from real pictures, is the asked class in them, and are they new?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.evaluate.alignment import RidgeMap, fit_ridge
from nirvana.evaluate.copies import Memorization, copy_ratio, memorization, nearest_distances
from nirvana.evaluate.frechet import Frechet, Moments, extrapolated, frechet_distance
from nirvana.evaluate.judge import FashionJudge
from nirvana.evaluate.kernel import KernelDistance, kernel_distance
from nirvana.evaluate.manifold import Manifold, manifold_scores
from nirvana.evaluate.space import FeatureSpace, ModuleSpace, open_space
from nirvana.evaluate.statistics import Interval, jackknife, wilson

CLASSIFIERS: Mapping[str, Callable[[], FashionJudge]] = MappingProxyType({"fashion": FashionJudge.load})
"""Name -> maker of a classifier that can steer a model, for `nirvana.load(RUN, classifiers=CLASSIFIERS)`."""

__all__ = [
    "CLASSIFIERS",
    "FashionJudge",
    "FeatureSpace",
    "Frechet",
    "Interval",
    "KernelDistance",
    "Manifold",
    "Memorization",
    "ModuleSpace",
    "Moments",
    "RidgeMap",
    "copy_ratio",
    "extrapolated",
    "fit_ridge",
    "frechet_distance",
    "jackknife",
    "kernel_distance",
    "manifold_scores",
    "memorization",
    "nearest_distances",
    "open_space",
    "wilson",
]
