"""The arithmetic of drift against SciPy, statsmodels and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance
from statsmodels.stats.multitest import multipletests

from penstock.components.monitoring import column_tests, kernels, laws, procedures
from penstock.components.monitoring.comparing import compare, wasserstein
from penstock.components.monitoring.grid import ColumnGrid, Grid
from penstock.components.monitoring.profiling import profile_column

Array = npt.NDArray[Any]

few = settings(max_examples=60)
samples = st.lists(st.integers(0, 12), min_size=2, max_size=60)


def counted(values: list[int]) -> Array:
    return np.bincount(values, minlength=13)


def column_grid(values: Array) -> ColumnGrid:
    return Grid.of({"x": values})["x"]


@few
@given(samples, samples)
def test_ks_is_that_of_scipy(x: list[int], y: list[int]) -> None:
    found = kernels.ks_distance(counted(x), counted(y))
    oracle = stats.ks_2samp(x, y, method="asymp")
    assert found == pytest.approx(oracle.statistic, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(400, 400), (5_000, 20_000), (1_000, 1_000)])
def test_p_values_of_ks_are_those_of_scipy_where_they_decide(n: int, m: int) -> None:
    size = round(n * m / (n + m))
    for t in (0.3, 0.8, 1.2, 1.49, 2.0, 2.6, 3.5):
        d = t / math.sqrt(size)
        oracle = stats.kstwo.sf(d, size)
        close = 1e-12 if size * d**2 >= 2.2 else 5e-3
        assert kernels.ks_p(d, n, m) == pytest.approx(oracle, rel=close)
        if t <= 2.0:  # beyond it p is below 1e-4 either way
            assert kernels.fast_ks_p(d, n, m) == pytest.approx(oracle, rel=0.06)
        p = float(kernels.fast_ks_p(d, n, m))
        assert kernels.ks_critical(p, n, m) == pytest.approx(d, rel=1e-6)


@few
@given(samples, samples)
def test_rank_sum_is_that_of_scipy(x: list[int], y: list[int]) -> None:
    greater, z, _ = kernels.rank_sum(counted(x), counted(y))
    oracle = stats.mannwhitneyu(y, x, use_continuity=False, method="asymptotic")
    assert greater == pytest.approx(oracle.statistic / (len(x) * len(y)), abs=1e-12)
    if len({*x, *y}) > 1:
        assert kernels.normal_p(z) == pytest.approx(oracle.pvalue, abs=1e-12)


def test_skewness_of_ranks_is_that_of_shuffled_rows() -> None:
    r, c = np.array([900, 60, 40]), np.array([85, 9, 6])
    _, _, skewness = kernels.rank_sum(r, c)
    rng = np.random.default_rng(0)
    both = rng.multivariate_hypergeometric(r + c, c.sum(), size=200_000)
    _, z, _ = kernels.rank_sum(r + c - both, both)
    assert skewness == pytest.approx(float(stats.skew(z)), abs=0.03)
    assert 0.2 < skewness < 0.6


def test_a_heavy_tail_of_z_makes_p_values_greater_and_never_smaller() -> None:
    z = np.linspace(-6, 6, 121)
    plain = kernels.normal_p(z)
    for skewness in (-0.6, -0.1, 0.0, 0.2, 2.0):
        moved = kernels.normal_p(z, skewness)
        assert (moved >= plain * (1 - 1e-12)).all()
        same = z * skewness <= 0
        assert moved[same] == pytest.approx(plain[same])
        assert (np.diff(moved[z >= 0]) <= 1e-15).all()


@few
@given(samples, samples)
def test_chi_squared_is_that_of_scipy(x: list[int], y: list[int]) -> None:
    r, c = counted(x), counted(y)
    used = (r + c) > 0
    statistic, degrees = kernels.chi_squared(r, c)
    if used.sum() < 2:
        assert float(statistic) == 0 and int(degrees) == 0
        return
    oracle = stats.chi2_contingency(np.stack([r, c])[:, used], correction=False)
    assert statistic == pytest.approx(oracle.statistic, rel=1e-12)
    assert degrees == oracle.dof
    p = kernels.chi_squared_p(statistic, degrees)
    assert p == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-300)


def test_rare_categories_are_pooled_by_what_both_sides_have() -> None:
    r, c = np.array([800, 150, 20, 10, 20]), np.array([400, 70, 8, 14, 8])
    statistic, degrees = kernels.pooled_chi_squared(r, c)
    # A third of the rows is the window's: 15 of both expect 5 of them.
    oracle = stats.chi2_contingency([r, c], correction=False)
    assert statistic == pytest.approx(oracle.statistic) and int(degrees) == 4
    r[2:], c[2:] = [6, 3, 8], [2, 4, 1]
    statistic, degrees = kernels.pooled_chi_squared(r, c)
    oracle = stats.chi2_contingency([[800, 150, 17], [400, 70, 7]], correction=False)
    assert statistic == pytest.approx(oracle.statistic) and int(degrees) == 2


@few
@given(samples, samples)
def test_distances_are_those_of_scipy(x: list[int], y: list[int]) -> None:
    r, c = counted(x), counted(y)
    values = np.arange(13.0) ** 2
    oracle = stats.wasserstein_distance(values, values, r, c)
    assert kernels.wasserstein(r, c, values) == pytest.approx(oracle, abs=1e-11)
    root = math.sqrt(kernels.jensen_shannon(r, c))
    assert root == pytest.approx(distance.jensenshannon(r, c, 2), abs=1e-7)
    overlap = np.sqrt(kernels.shares(r) * kernels.shares(c)).sum()
    assert kernels.hellinger(r, c) ** 2 == pytest.approx(1 - overlap, abs=1e-12)


def test_psi_is_its_formula_and_finite_where_a_bin_is_empty() -> None:
    r, c = np.array([10, 20, 70]), np.array([20, 20, 60])
    p, q = r / 100, c / 100
    assert kernels.psi(r, c) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert kernels.psi(np.array([10, 0]), np.array([5, 5])) == pytest.approx(
        (0.5 - 1) * math.log(0.5 / 1) + (0.5 - 0.05) * math.log(0.5 / 0.05)
    )


@pytest.mark.parametrize(
    ("n", "m", "bins", "limit", "above"),
    [
        (100, 100, 10, 0.1, 0.83),
        (100, 100, 10, 0.25, 0.19),
        (200, 10_000, 10, 0.1, 0.02),
        (1_000, 100_000, 100, 0.1, 0.48),
        (5_000, 100_000, 500, 0.1, 0.76),
        (10_000, 100_000, 1_000, 0.1, 0.98),
        (1_000, 1_000, 10, 0.1, 1e-7),
    ],
)
def test_fixed_limits_of_psi_are_crossed_without_drift(
    n: int, m: int, bins: int, limit: float, above: float
) -> None:
    p = float(kernels.chi_squared_p(limit * kernels.harmonic(n, m), bins - 1))
    assert p == pytest.approx(above, abs=0.01 if above > 1e-3 else 1e-7)
    # Each value of PSI is the critical one of its own p-value.
    assert kernels.psi_critical(p, bins, n, m) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "bins"), [(2_000, 20_000, 10), (500, 500, 4)])
def test_psi_without_drift_is_as_its_law_says(n: int, m: int, bins: int) -> None:
    rng = np.random.default_rng(1)
    p = np.full(bins, 1 / bins)
    psi = kernels.psi(rng.multinomial(m, p, 20_000), rng.multinomial(n, p, 20_000))
    assert psi.mean() == pytest.approx(float(kernels.psi_null(bins, n, m)), rel=0.03)
    critical = kernels.psi_critical(0.05, bins, n, m)
    assert (psi > critical).mean() == pytest.approx(0.05, abs=0.01)


@few
@given(
    st.integers(50, 100_000),
    st.integers(100, 100_000),
    st.floats(1e-4, 0.97),
    st.floats(-6, 6),
)
def test_tails_of_shares_are_those_of_the_hypergeometric_law(
    n: int, m: int, share: float, z: float
) -> None:
    kind = min(max(round(share * (n + m)), 1), n + m - 1)
    law = stats.hypergeom(n + m, kind, n)
    a = round(float(law.mean() + z * law.std()))
    a = min(max(a, 0, kind - m), n, kind)
    above = law.sf(a - 1)
    found = kernels.tail_above(a, n, kind - a, m)
    if above > 1e-12:
        assert found == pytest.approx(above, rel=0.12)
    below = law.cdf(a)
    if below > 1e-12:
        found = kernels.tail_below(a, n, kind - a, m)
        assert found == pytest.approx(below, rel=0.12)


def test_a_share_that_the_reference_never_had_is_tested_exactly() -> None:
    for a in (1, 3, 20):
        oracle = stats.hypergeom.sf(a - 1, 25_000, a, 5_000)
        assert kernels.tail_above(a, 5_000, 0, 20_000) == pytest.approx(
            oracle, rel=1e-8
        )
    gone = stats.hypergeom.cdf(0, 25_000, 30, 5_000)
    assert kernels.tail_below(0, 5_000, 30, 20_000) == pytest.approx(gone, rel=1e-8)
    assert kernels.share_p(0, 5_000, 0, 20_000) == 1


def test_bins_are_about_equal_and_never_divide_a_place() -> None:
    starts = kernels.bins_of(np.full(1_000, 3))
    assert (np.diff([*starts, 1_000]) == 100).all()
    # 70 % in one place: it is a bin of its own.
    r = np.array([*[1] * 100, 700, *[1] * 200])
    held = kernels.binned(r, kernels.bins_of(r))
    assert held.sum() == 1_000 and 700 in held and (held > 0).all()
    assert kernels.bins_of(np.zeros(5)).tolist() == [0]
    assert kernels.bins_of(np.array([0, 9, 0])).tolist() == [0]


def test_on_a_grid_ks_is_exact_to_a_place() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.1, 0.5):
        x, y = rng.lognormal(size=20_000), rng.lognormal(shift, size=5_000)
        grid = column_grid(x)
        r, c = profile_column(grid, x), profile_column(grid, y)
        oracle = stats.ks_2samp(x, y, method="asymp").statistic
        found = float(kernels.ks_distance(r.counts, c.counts))
        assert oracle - 1 / 4096 <= found <= oracle + 1e-12


def test_on_values_of_the_grid_everything_is_exact() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 500, 6_000).astype(float)
    y = np.minimum(rng.integers(3, 510, 2_000), 499).astype(float)
    grid = column_grid(x)
    r, c = profile_column(grid, x), profile_column(grid, y)
    measures = {each.drift_type: each for each in compare(r, c)}
    ks = stats.ks_2samp(x, y, method="asymp")
    assert measures["ks"].value == pytest.approx(ks.statistic, abs=1e-12)
    assert measures["ks"].p_value == pytest.approx(ks.pvalue, rel=5e-3)
    u = stats.mannwhitneyu(y, x, use_continuity=False, method="asymptotic")
    greater = u.statistic / (len(x) * len(y))
    assert measures["mean_shift"].value == pytest.approx(
        math.sqrt(2) * stats.norm.ppf(greater), abs=1e-12
    )
    found, _ = wasserstein(r, c)
    quartiles = np.quantile(x, [0.25, 0.75], method="inverted_cdf")
    oracle = stats.wasserstein_distance(x, y) / (np.diff(quartiles)[0] / 1.349)
    assert found == pytest.approx(oracle, rel=1e-9)


def test_an_outlier_blinds_nothing() -> None:
    rng = np.random.default_rng(4)
    x = np.append(rng.lognormal(size=20_000), 1e9)
    y = rng.lognormal(0.5, size=5_000)
    grid = column_grid(x)
    r, c = profile_column(grid, x), profile_column(grid, y)
    measures = {each.drift_type: each for each in compare(r, c)}
    assert measures["ks"].value == pytest.approx(0.2, abs=0.02)
    assert measures["psi"].value == pytest.approx(0.24, abs=0.04)
    assert measures["wasserstein"].value > 0.4
    assert min(measures[each].ratio for each in ("ks", "mean_shift", "psi")) > 2


@few
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=30), st.floats(1e-4, 0.5))
def test_benjamini_hochberg_is_that_of_statsmodels(
    p: list[float], level: float
) -> None:
    found = procedures.benjamini_hochberg(p, level)
    oracle = multipletests(p, level, "fdr_bh")[0]
    assert found.tolist() == oracle.tolist()
    # Simes' p-value is at most the level exactly where something is found.
    simes = float(procedures.simes(np.array(p)))
    if abs(simes - level) > 1e-12:
        assert (simes <= level) == bool(found.any())


def test_scores_and_labels_have_a_share_of_the_level_to_themselves() -> None:
    roles = ["feature"] * 300 + ["score", "label"]
    assert procedures.group_shares(roles) == {
        "feature": pytest.approx(0.8),
        "label": pytest.approx(0.1),
        "score": pytest.approx(0.1),
    }
    assert procedures.group_shares(["feature"] * 3) == {"feature": 1}
    assert procedures.group_shares(["score"], {"score": 0.2}) == {"score": 1}
    p = np.ones((302, 1))
    p[300] = 0.002
    assert procedures.model_p(p, roles)[0] == pytest.approx(0.02)
    p[300], p[0] = 1.0, 0.002
    assert procedures.model_p(p, roles)[0] == pytest.approx(0.75)


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.83])
def test_p_values_over_windows_are_p_values(correlation: float) -> None:
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((300_000, 1)) * math.sqrt(correlation)
    z = shared + rng.standard_normal((300_000, 3)) * math.sqrt(1 - correlation)
    p = 2 * stats.norm.sf(np.abs(z))
    kth = np.sort(p, axis=1)[:, 1]
    lasting = procedures.persistence_p(kth, 2, 3, correlation)
    over = procedures.over_windows(p, 2, 3, correlation, 0.3)[:, -1]
    for level in (0.3, 0.03, 0.003):
        assert (lasting <= level).mean() == pytest.approx(level, rel=0.12)
        assert (over <= level).mean() <= level * 1.12


def test_persistence_far_out_keeps_its_slope() -> None:
    p = np.array([1e-30, 1e-8, 1e-3, 1.0])
    without = procedures.persistence_p(p, 2, 3, 0.0)
    assert without == pytest.approx(3 * p**2 - 2 * p**3, rel=1e-3)
    with_reference = procedures.persistence_p(p, 2, 3, 0.5)
    assert (with_reference[:3] > without[:3]).all()
    assert (with_reference <= p * 1.01).all()
    level = procedures.persistence_level(1e-4, 2, 3, 0.5)
    assert procedures.persistence_p(np.array(level), 2, 3, 0.5) == pytest.approx(
        1e-4, rel=1e-6
    )


def test_the_first_windows_look_at_fewer() -> None:
    p = np.array([[1e-6, 0.5, 0.5, 1e-6, 0.5]])
    over = procedures.over_windows(p, 2, 3, 0.0, 0.3)
    assert over[0, 0] == pytest.approx(1e-6 / 0.3)
    assert over[0, 1] == pytest.approx(0.25 / 0.7, rel=0.01)
    assert over[0, 3] == pytest.approx(1e-6 / 0.3)
    assert procedures.over_windows(p, 1, 1, 0.0, 0.3) is p


def null_rates(law: laws.ValueLaw, n: int, references: int = 150) -> list[float]:
    """How often p-values are below 5 % and 0.5 %, by these."""
    rng = np.random.default_rng(6)
    none = dict.fromkeys(column_tests.EFFECTS, 0.0)
    p = np.concatenate(
        [laws.replay_values(law, rng, 20_000, n, 20, none) for _ in range(references)]
    )
    return [float((p < level).mean() / level) for level in (0.05, 0.005)]


@pytest.mark.parametrize("n", [1_000, 5_000])
@pytest.mark.parametrize(
    "law",
    [
        laws.numeric_law(np.full(4_096, 5.0)),
        laws.ValueLaw("numeric", (0.995, 0.005), 1),
        laws.ValueLaw("numeric", (0.9, *[0.1 / 60] * 60), 0),
        laws.ValueLaw("category", tuple(1 / i / 7.486 for i in range(1, 1_001))),
        laws.ValueLaw("category", (1 / 3_000,) * 3_000),
        laws.ValueLaw("category", (0.98, 0.02)),
    ],
    ids=["continuous", "rare binary", "zeros", "zipf 1000", "even 3000", "two"],
)
def test_p_values_of_columns_keep_their_level(law: laws.ValueLaw, n: int) -> None:
    wide, narrow = null_rates(law, n)
    assert wide <= 1.05
    # 3,000 windows: 15 are expected at most; twice as many would be a fault.
    assert narrow <= 1.7


def test_a_law_stays_one_when_it_is_made_coarse() -> None:
    even = laws.numeric_law(np.full(4_096, 5.0))
    assert even == laws.numeric_law(np.full(3_000, 7.0))
    assert (len(even.probabilities), even.coarse) == (88, 64)
    assert sum(even.probabilities) == pytest.approx(1)
    with_zeros = laws.numeric_law(np.append(4_000.0, np.full(3_000, 2.0)), 0)
    assert with_zeros.zero_place == 0
    assert with_zeros.probabilities[0] == pytest.approx(0.4)
    few_values = laws.numeric_law(np.array([3.0, 0.0, 1.0]), 2)
    assert few_values == laws.ValueLaw("numeric", (0.75, 0.25), 1)
