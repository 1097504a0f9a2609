"""pytorch-fid's Fréchet distance of two sets of features, timed. Its module wants torchvision only for pictures."""

from __future__ import annotations

import json
import sys
import time
import types
from unittest import mock

import numpy as np

with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in ("torchvision", "torchvision.transforms")}):
    sys.modules["pytorch_fid.inception"] = types.SimpleNamespace(InceptionV3=mock.MagicMock())  # type: ignore[assignment]
    from pytorch_fid.fid_score import calculate_frechet_distance

data = np.load(sys.argv[1])
a, b = data["a"].astype(np.float64), data["b"].astype(np.float64)
second = b.mean(axis=0), np.cov(b, rowvar=False)
started = time.perf_counter()
distance = calculate_frechet_distance(a.mean(axis=0), np.cov(a, rowvar=False), *second)
print(json.dumps({"distance": float(distance), "seconds": time.perf_counter() - started}))
