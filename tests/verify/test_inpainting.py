"""The proof of inpainting finds planted faults, and says what the closed forms say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from nirvana.diffusion import DDIM, Edit, Level, Noise, Prediction, RectifiedFlow, uniform
from nirvana.diffusion.inpaint import DDNM, Langevin, Method, Observed, Replacement
from nirvana.diffusion.noise import Key
from nirvana.diffusion.solver import Denoise
from nirvana.verify.inpainting import (
    SMALL,
    calibration,
    drawn_errors,
    errors,
    mixture_moments,
    moments,
    p_values,
    pair,
)
from nirvana.verify.report import markdown
from nirvana.verify.walks import Broken

LEVELS = uniform(RectifiedFlow(), 32)
SOUND = Langevin(16)


@dataclass(frozen=True)
class Louder:
    """A noise that is 1.1 times too loud where it is fresh."""

    noise: Noise

    def initial(self) -> Tensor:
        return self.noise.initial()

    def path(self, now: Level, nxt: Level) -> Tensor:
        return self.noise.path(now, nxt)

    def fresh(self, key: Key) -> Tensor:
        return 1.1 * self.noise.fresh(key)


@dataclass(frozen=True)
class Silent(Louder):
    """A noise without momentum and friction."""

    def fresh(self, key: Key) -> Tensor:
        return 0 * self.noise.fresh(key)


@dataclass(frozen=True)
class Faulty:
    """A method whose edits are given another denoiser and another noise."""

    method: Method
    force: float = 1.0
    noise: Callable[[Noise], Noise] = lambda noise: noise

    def calls(self, levels: Sequence[Level]) -> int:
        return self.method.calls(levels)

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        return tuple(self._spoiled(edit) for edit in self.method.edits(observed, levels))

    def _spoiled(self, edit: Edit) -> Edit:
        def spoiled(x: Tensor, level: Level, denoise: Denoise, noise: Noise) -> Tensor:
            def other(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
                """The x0 of `force` times the eps."""
                alpha, _ = level.like(x)
                return Prediction(x / alpha + self.force * (denoise(x, level, nxt).x0 - x / alpha))

            return edit(x, level, other, self.noise(noise))

        return spoiled


def test_the_sound_one_is_below_the_limit():
    assert errors(SOUND, DDIM(), pair(), LEVELS).worst < SMALL


@pytest.mark.parametrize(
    "faulty",
    [
        Faulty(SOUND, force=1 / 1.1),  # sigma 1.1 times too large in the force
        Faulty(SOUND, force=1.1),
        Faulty(SOUND, force=-1.0),
        Faulty(SOUND, noise=Louder),
        Faulty(SOUND, noise=Silent),
    ],
    ids=["sigma too large", "sigma too small", "sign of the force", "loud noise", "no noise"],
)
def test_faults_of_the_dynamics_are_found(faulty: Faulty):
    try:
        found = errors(faulty, DDIM(), pair(), LEVELS)
    except Broken:
        return  # it explodes
    assert not found.worst < 2 * SMALL


def test_the_bias_of_replacement_is_that_of_its_closed_form():
    """One step from pure noise to clean data is the mean 0, which knows no y: all of 0.9 y and 0.19 is missing."""
    levels = [Level.of(0.0, 1.0), Level.of(1.0, 0.0)]
    found = errors(Replacement(), DDIM(), pair(), levels)
    assert found.mean == pytest.approx(1) and found.cov == pytest.approx(1) and found.calls == 1


def test_ranks_of_densities_see_what_ranks_of_values_do_not():
    biased = p_values(DDNM(), "ddim", 16, 1000)
    assert biased["value"] > 1e-3 > biased["density"]
    wrong = p_values(Faulty(Langevin(8), force=0.7), "ddim", 16, 500)
    assert min(wrong.values()) < 1e-3


def test_findings_that_fail_are_said():
    findings = list(moments("correlation 0.9", 4, (1, 2), ("ddim",)))
    failed = [f for f in findings if not f.passed]
    assert [f.subject for f in failed] == ["langevin with ddim"] and "limit 2%" in failed[0].detail
    langevin, replacement, repaint, ddnm = calibration(("ddim",), 8, 1000, inner=0)
    assert not langevin.passed and replacement.passed and repaint.passed and ddnm.passed
    assert "found out" in ddnm.detail and ddnm.setting == "mixture"
    found = list(mixture_moments(4, (1, 2), ("ddim",), 2000))
    assert [f.subject for f in found if not f.passed] == ["langevin with ddim"]


def test_moments_of_a_mixture_are_those_of_its_closed_form():
    """Draws of the law itself are within chance; its bias is seen, of the mean alone and of the variance alone."""
    for method, worst in ((SOUND, (0.0, 0.08)), (DDNM(), (0.3, 9.0)), (Faulty(SOUND, noise=Louder), (0.1, 9.0))):
        found = drawn_errors(method, "ddim", LEVELS, 3_000)
        assert worst[0] <= found.worst <= worst[1] and found.known == 0
    one_step = drawn_errors(Replacement(), "ddim", [Level.of(0.0, 1.0), Level.of(1.0, 0.0)], 100)
    assert one_step.cov == pytest.approx(1)  # all draws are the mean of the mixture


def test_the_report_has_a_section():
    findings = list(moments("correlation 0.9", 8, (2, 16), ("heun", "ddim")))
    text = markdown(findings, quick=True, mutation="")
    assert text.count("| langevin:steps=16 with") == 2
    assert text.index("## Inpainting") < text.index("langevin:steps=2 ") < text.index("langevin:steps=16 ")
    assert text.index("langevin:steps=16 with ddim") < text.index("ddnm with heun")
    assert "what is known exact" in text and "## Conversions" not in text
