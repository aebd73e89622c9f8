"""The default rules of others, against the false alarms that were simulated of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from penstock.components.monitoring import incumbents, kernels

PLACES = 2_000
EVEN = np.full(PLACES, 1 / PLACES)
VALUES = stats.norm.ppf((np.arange(PLACES) + 0.5) / PLACES)


@pytest.mark.parametrize(
    ("rows", "alarms", "close"),
    [
        (50, 0.96, 0.03),
        (100, 0.75, 0.05),
        (200, 0.31, 0.05),
        (500, 0.057, 0.025),
        (1_000, 0.01, 0.01),
    ],
)
def test_wasserstein_by_deviation_alarms_without_drift(
    rows: int, alarms: float, close: float
) -> None:
    rng = np.random.default_rng(0)
    found = np.concatenate(
        [
            incumbents.evidently(
                rng.multinomial(5_000, EVEN), rng.multinomial(rows, EVEN, 10), VALUES
            )
            for _ in range(150)
        ]
    )
    assert found.mean() == pytest.approx(alarms, abs=close)


@pytest.mark.parametrize(
    ("categories", "rows", "alarms", "close"),
    [
        (20, 200, 0.76, 0.08),
        (100, 200, 1.0, 0.001),
        (100, 1_000, 0.99, 0.01),
        (500, 5_000, 1.0, 0.001),
    ],
)
def test_jensen_shannon_alarms_without_drift(
    categories: int, rows: int, alarms: float, close: float
) -> None:
    rng = np.random.default_rng(1)
    p = np.full(categories, 1 / categories)
    found = np.concatenate(
        [
            incumbents.evidently(
                rng.multinomial(10_000, p), rng.multinomial(rows, p, 10)
            )
            for _ in range(100)
        ]
    )
    assert found.mean() == pytest.approx(alarms, abs=close)


@pytest.mark.parametrize(
    ("features", "alarms"), [(10, 0.40), (50, 0.92), (100, 0.994), (300, 1.0)]
)
def test_ks_without_correction_alarms_by_the_number_of_features(
    features: int, alarms: float
) -> None:
    rng = np.random.default_rng(2)
    single = np.concatenate(
        [
            incumbents.uncorrected_ks(
                rng.multinomial(20_000, EVEN), rng.multinomial(5_000, EVEN, 10)
            )
            for _ in range(200)
        ]
    )
    assert single.mean() == pytest.approx(0.05, abs=0.015)
    assert 1 - (1 - single.mean()) ** features == pytest.approx(alarms, abs=0.1)


def test_small_references_are_tested_by_p_values() -> None:
    rng = np.random.default_rng(3)
    for p, values in (
        (EVEN, VALUES),
        (np.array([0.5, 0.3, 0.2]), None),
        (np.array([0.7, 0.3]), np.arange(2.0)),
    ):
        found = np.concatenate(
            [
                incumbents.evidently(
                    rng.multinomial(1_000, p), rng.multinomial(100, p, 10), values
                )
                for _ in range(150)
            ]
        )
        assert 0.02 < found.mean() < 0.1


def test_one_outlier_blinds_what_divides_the_range_evenly() -> None:
    rng = np.random.default_rng(4)
    reference = np.append(rng.lognormal(size=20_000), 1e9)
    current = rng.lognormal(0.5, size=20_000)
    ks = stats.ks_2samp(reference, current, method="asymp").statistic
    assert ks == pytest.approx(0.2, abs=0.01)
    assert incumbents.equal_width_ks(reference, current) < 1e-3
    assert incumbents.equal_width_psi(reference, current) < 0.05
    assert incumbents.equal_width_js(reference, current) < 0.02
    assert incumbents.ten_bins_divergence(reference, current) < 1e-3
    by_deviation = stats.wasserstein_distance(reference, current) / reference.std()
    assert by_deviation < 0.02
    # The same of places: the rule is told from counts.
    steps = np.linspace(0, 1, 1_001)[1:]
    both = [np.quantile(each, steps) for each in (reference[:-1], current)]
    edges = np.unique(np.concatenate([*both, [1e9]]))
    places = [np.searchsorted(edges, each) for each in (reference, current)]
    r, c = (np.bincount(each, minlength=len(edges) + 1) for each in places)
    values = np.append(edges, edges[-1])
    assert incumbents.wasserstein_by_deviation(r, c, values) < 0.02
    starts = kernels.bins_of(r)
    binned = kernels.binned(r, starts), kernels.binned(c, starts)
    assert incumbents.fixed_psi(*binned)
    assert kernels.psi(*binned) == pytest.approx(0.24, abs=0.03)


def test_distances_are_as_scipy_has_them() -> None:
    r, c = np.array([5.0, 3.0, 2.0]), np.array([2.0, 2.0, 6.0])
    assert incumbents.jensen_shannon_distance(r, c) == pytest.approx(
        distance.jensenshannon(r, c)
    )
    same = np.random.default_rng(5).normal(size=2_000)
    assert incumbents.ten_bins_divergence(same, same) == pytest.approx(0, abs=1e-12)
    assert 0.1 < incumbents.ten_bins_divergence(same, same + 1.5) < 1
