"""What samples are worth: is the asked class in them, and are they new?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.evaluate.copies import copy_ratio, nearest_distances
from nirvana.evaluate.judge import FashionJudge
from nirvana.evaluate.statistics import Interval, wilson

CLASSIFIERS: Mapping[str, Callable[[], FashionJudge]] = MappingProxyType({"fashion": FashionJudge.load})
"""Name -> maker of a classifier that can steer a model, for `nirvana.load(RUN, classifiers=CLASSIFIERS)`."""

__all__ = ["CLASSIFIERS", "FashionJudge", "Interval", "copy_ratio", "nearest_distances", "wilson"]
