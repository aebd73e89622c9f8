"""Confidence sequences: their boundaries, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from penstock.components.serving.rollout.sequences import (
    log_one_sided,
    one_sided_boundary,
    tuning,
    two_sided_boundary,
)


@pytest.mark.parametrize(
    ("of_horizon", "z"),
    [(0.1, 3.855), (0.25, 3.264), (1, 3.035), (2, 3.061), (10, 3.242)],
)
def test_the_normal_mixture_has_its_known_z_equivalents(
    of_horizon: float, z: float
) -> None:
    n = 5_000
    assert two_sided_boundary(of_horizon * n, 0.05, n) == pytest.approx(z, abs=5e-4)


def test_a_boundary_is_tightest_about_where_it_is_tuned_for() -> None:
    n = np.geomspace(10, 1e7, 4_001)
    best = n[two_sided_boundary(n, 0.05, 5_000).argmin()]
    assert 0.8 * 5_000 < best < 1.6 * 5_000


def test_the_two_sided_boundary_is_the_published_formula() -> None:
    for alpha in (0.2, 0.05, 1e-6):
        for n in (100, 5_000, 1e9):
            rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / 5_000
            published = math.sqrt(
                2
                * (n * rho2 + 1)
                / (n * rho2)
                * math.log(math.sqrt(n * rho2 + 1) / alpha)
            )
            assert two_sided_boundary(n, alpha) == pytest.approx(published, rel=1e-12)


def test_the_one_sided_boundary_is_the_published_formula() -> None:
    for alpha in (0.2, 0.05, 1e-6):
        for n in (100, 5_000, 1e9):
            rho2 = tuning(2 * alpha)
            published = math.sqrt(
                2
                * (n * rho2 + 1)
                / (n * rho2)
                * math.log(1 + math.sqrt(n * rho2 + 1) / (2 * alpha))
            )
            assert one_sided_boundary(n, alpha) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 0.01, 1e-4, 1e-12])
@pytest.mark.parametrize("n", [120, 5_000, 10**7])
def test_evidence_reaches_its_limit_where_the_sequence_passes_zero(
    alpha: float, n: int
) -> None:
    z = float(one_sided_boundary(n, alpha))
    assert log_one_sided(z, n, alpha) == pytest.approx(-math.log(alpha), rel=1e-9)


def test_evidence_never_exceeds_that_of_the_half_normal_mixture() -> None:
    # Which is a martingale for Brownian motion: 2 Φ(y) exp(y²/2) / √(nρ² + 1).
    for n in (50.0, 3_000.0, 1e6):
        for z in (0.0, 0.3, 1.0, 3.0, 8.0, 40.0):
            scale = n * tuning(0.02)
            y = z * math.sqrt(scale / (scale + 1))
            mixture = (
                math.log(2)
                + float(special.log_ndtr(y))
                + y * y / 2
                - 0.5 * math.log1p(scale)
            )
            found = float(log_one_sided(z, n, 0.01))
            assert found <= mixture + 1e-12
            if y >= 3:
                assert found == pytest.approx(mixture, abs=0.02)


def test_far_tails_neither_overflow_nor_underflow() -> None:
    assert np.isfinite(log_one_sided(1e8, 1e6, 0.01))
    assert log_one_sided(40.0, 1e6, 0.01) > 700
    assert log_one_sided(-5.0, 1e6, 0.01) == -math.inf
    assert log_one_sided(1e-9, 1e6, 0.01) < -30
    assert np.isfinite(two_sided_boundary(1e6, 1e-300))


@pytest.mark.parametrize(("looks", "at_most"), [(10, 0.013), (50, 0.018), (200, 0.022)])
def test_a_two_sided_sequence_is_left_as_seldom_as_is_known(
    looks: int, at_most: float
) -> None:
    rng = np.random.default_rng(4)
    n = 5_000 * np.arange(1, looks + 1) / looks
    z = walk(rng, 20_000, looks) / np.sqrt(np.arange(1, looks + 1))
    assert (np.abs(z) >= two_sided_boundary(n, 0.05)).any(axis=1).mean() <= at_most


def test_a_two_sided_sequence_has_its_known_power() -> None:
    rng = np.random.default_rng(5)
    looks = 400  # to twice the horizon
    n = 5_000 * np.arange(1, looks + 1) / 200
    drift = (1.959964 + 0.841621) * np.sqrt(n / 5_000)
    z = walk(rng, 10_000, looks) / np.sqrt(np.arange(1, looks + 1)) + drift
    over = np.abs(z) >= two_sided_boundary(n, 0.05)
    assert over[:, :200].any(axis=1).mean() == pytest.approx(0.52, abs=0.02)
    assert over.any(axis=1).mean() == pytest.approx(0.88, abs=0.02)
    stop = np.where(over.any(axis=1), n[over.argmax(axis=1)], n[-1]) / 5_000
    assert stop.mean() == pytest.approx(1.06, abs=0.03)


def test_a_one_sided_sequence_holds_its_level_at_every_look() -> None:
    rng = np.random.default_rng(6)
    looks = 500
    n = np.geomspace(100, 1e6, looks)
    increments = np.sqrt(np.diff(n, prepend=0.0))
    sums = np.cumsum(rng.normal(size=(10_000, looks)) * increments, axis=1)
    logs = log_one_sided(sums / np.sqrt(n), n, 0.05)
    assert (logs >= math.log(20)).any(axis=1).mean() <= 0.05


def walk(
    rng: np.random.Generator, paths: int, looks: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.cumsum(rng.normal(size=(paths, looks)), axis=1)
