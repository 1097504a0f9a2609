"""Guidance: against closed forms, and what it calls."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from nirvana.diffusion import CFG, Guided, Interval, Level, MixtureDenoiser, Rule
from nirvana.diffusion.guidance import CFGpp
from nirvana.diffusion.named import SOLVERS
from nirvana.verify.finding import Finding
from nirvana.verify.problems import mixture
from nirvana.verify.walks import Counted, Silence, ended

LAMS = (-3.0, -0.7, 0.0, 1.1, 3.0)


def one_is_strong(name: str, rule: Rule) -> Finding:
    """w = 1 is the strong branch bit for bit, and does not call the weak one."""
    strong, weak, x = *_branches(), _x()
    guided = Guided((strong, weak), rule)
    faults = [
        f"lam = {lam}: not the strong branch bit for bit"
        for lam in LAMS
        if not torch.equal(guided(x, Level.from_lam(lam), {}).x0, strong.denoiser(x, Level.from_lam(lam), {}).x0)
    ]
    faults += [f"the weak branch is called {weak.calls} times"] * (weak.calls > 0)
    return _found("guidance w = 1", name, faults, "the strong branch, the weak one never called", strong.calls)


def closed_form(w: float) -> Finding:
    """CFG of two mixtures has the score (1 - w) grad log p_weak + w grad log p_strong, by differentiation, to 1e-9."""
    strong, weak = _branches()
    guided, x, worst = Guided((strong, weak), CFG(w)), _x(), 0.0
    for level in (Level.from_lam(lam).scaled(scale) for lam in LAMS for scale in (1.0, 7.0)):
        at = x * level.norm
        found = (level.alpha * guided(at, level, {}).x0 - at) / level.sigma**2
        scores = [_score(mixture, at, level) for mixture in _mixtures()]
        true = w * scores[0] + (1 - w) * scores[1]
        worst = max(worst, float((found - true).abs().max() / true.abs().max()))
    detail = f"largest difference {worst:.1e} of the guided score, limit 1e-09"
    return Finding(
        "guidance closed form", f"cfg w = {w:g}", "mixture", worst <= 1e-9, detail, 1e-9, worst, strong.calls
    )


def interval_skips(low: float, high: float) -> Finding:
    """Inside [low, high] of the ratio both branches are called, outside the strong one alone, bit for bit."""
    faults, x, total = list[str](), _x(), 0
    for ratio in (0.01, low * 0.999, low, math.sqrt(low * high), high, high * 1.001, 100.0, math.inf):
        strong, weak = _branches()
        level, inside = Level.from_ratio(ratio), low <= ratio <= high
        level = Level.of(1.0, ratio) if math.isfinite(ratio) else level
        x0 = Guided((strong, weak), Interval(CFG(3.0), low, high))(x, level, {}).x0
        total += strong.calls + weak.calls
        if (strong.calls, weak.calls) != (1, int(inside)):
            faults.append(f"ratio {ratio:g}: {strong.calls} strong and {weak.calls} weak calls")
        elif torch.equal(x0, strong.denoiser(x, level, {}).x0) == inside:
            faults.append(f"ratio {ratio:g}: {'not guided inside' if inside else 'guided outside'}")
    return _found("guidance interval", f"[{low:g}, {high:g}]", faults, "calls what it says, and no more", total)


def plus_plus(w: float) -> Finding:
    """A first-order step under CFG++ is alpha_nxt*(weak + w*(strong - weak)) + sigma_nxt*eps_weak, the paper's."""
    (strong, weak), x, worst = _branches(), _x(), 0.0
    for now, nxt in pairwise([Level.from_lam(lam).scaled(1 + lam**2) for lam in LAMS]):
        x0s = [branch.denoiser(x, now, {}).x0 for branch in (strong, weak)]
        eps_weak = (x - now.alpha * x0s[1]) / now.sigma
        true = nxt.alpha * (x0s[1] + w * (x0s[0] - x0s[1])) + nxt.sigma * eps_weak
        found = ended(SOLVERS["ddim"](), Guided((strong, weak), CFGpp(w)), x, [now, nxt], Silence())
        worst = max(worst, float((found - true).abs().max() / true.abs().max()))
    detail = f"largest difference {worst:.1e} of a step, limit 1e-12"
    return Finding("guidance closed form", f"cfg++ w = {w:g}", "mixture", worst <= 1e-12, detail, 1e-12, worst)


def _mixtures() -> tuple[MixtureDenoiser, MixtureDenoiser]:
    """Two components of the mixture, and all five."""
    weak = mixture().denoiser
    return MixtureDenoiser(weak.weights[:2], weak.means[:2], weak.variances[:2]), weak


def _branches() -> tuple[Counted, Counted]:
    strong, weak = _mixtures()
    return Counted(strong), Counted(weak)


def _x() -> Tensor:
    return mixture().at(Level.of(0.6, 0.8), 6, seed=7)


def _score(of: MixtureDenoiser, x: Tensor, level: Level) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(of.log_prob(x, level).sum(), x)[0]


def _found(proof: str, subject: str, faults: list[str], detail: str, calls: int) -> Finding:
    return Finding(proof, subject, "mixture", not faults, faults[0] if faults else detail, calls=calls)
