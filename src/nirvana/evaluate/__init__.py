"""What samples are worth: is the asked class in them, and are they new?"""

from __future__ import annotations

from nirvana.evaluate.copies import copy_ratio, nearest_distances
from nirvana.evaluate.judge import FashionJudge
from nirvana.evaluate.statistics import Interval, wilson

__all__ = ["FashionJudge", "Interval", "copy_ratio", "nearest_distances", "wilson"]
