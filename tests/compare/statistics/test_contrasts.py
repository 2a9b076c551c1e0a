"""Statistics of the comparison: equivalences first, then coverage, size and power by simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from recsys.compare.statistics import resampling
from recsys.compare.statistics.contrasts import (
    adjust_holm,
    compute_contrast,
    estimate_mean,
    pool_seed_degrees,
    pool_seed_variance,
)
from recsys.compare.statistics.resampling import pool_degrees
from recsys.compare.statistics.variance import compute_components
from recsys.errors import DataError

USERS = 300


def normal(rng, runs, shift=0.0, spread=0.05, users=USERS):
    """Methods on the same users: user, user x method, run, and user x run effects."""
    common = rng.standard_normal(users)
    out = []
    for place, count in enumerate(runs):
        liking = 0.4 * rng.standard_normal(users)
        effect = spread * rng.standard_normal((count, 1)) + (shift if place == 0 else 0.0)
        out.append(common + liking + effect + 0.6 * rng.standard_normal((count, users)))
    return out


def hits(rng, runs, rate=0.1, spread=0.01, users=USERS):
    """Runs of one method with 0-1 values, of which most are 0, and the rate varies by run."""
    common = rng.standard_normal(users)
    latent = np.sqrt(0.7) * common + np.sqrt(0.3) * rng.standard_normal((runs, users))
    rates = np.clip(rate + spread * rng.standard_normal((runs, 1)), 0.005, 0.995)
    return (latent > stats.norm.ppf(1 - rates)).astype(float)


def heavy(rng, runs, spread=0.05, users=USERS):
    """Runs of one method whose values have three degrees of freedom."""
    common = rng.standard_t(3, users)
    return common + spread * rng.standard_normal((runs, 1)) + rng.standard_t(3, (runs, users))


# Equivalences


def test_variance_is_the_two_way_anova_of_the_values():
    rng = np.random.default_rng(0)
    a, b = normal(rng, [3, 4], users=50)
    means = [x.mean(axis=1) for x in (a, b)]
    users = (a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / 50
    seeds = [m.var(ddof=1) / m.size for m in means]
    residuals = []
    for x in (a, b):
        left = x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()
        mean_square = np.square(left).sum() / ((len(x) - 1) * 49)
        residuals.append(mean_square / x.size)
    source = compute_components([a, b], np.arange(50))
    assert source.users == pytest.approx(users)
    assert [s.spread for s in source.seeds] == pytest.approx(seeds)
    assert [s.residual for s in source.seeds] == pytest.approx(residuals)
    assert users > sum(residuals)
    expected = users + sum(max(s - r, 0) for s, r in zip(seeds, residuals, strict=True))
    assert source.variance == pytest.approx(expected)


def test_one_run_a_side_is_the_paired_t_test_over_users():
    rng = np.random.default_rng(1)
    a, b = normal(rng, [1, 1], shift=0.12)
    found = compute_contrast(a, b, np.arange(USERS), draws=8000)
    known = stats.ttest_rel(a[0], b[0])
    low, high = known.confidence_interval(0.95)
    width = high - low
    assert found.about == "models"
    assert found.p == pytest.approx(known.pvalue, rel=0.25)
    assert found.low == pytest.approx(low, abs=0.03 * width)
    assert found.high == pytest.approx(high, abs=0.03 * width)
    assert found.effect == pytest.approx(known.statistic / np.sqrt(USERS))


def test_with_few_users_it_is_the_exact_test_over_all_signs():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(8), [1, 2, 3, 1, 2, 3, 1, 2])
    a, b = rng.standard_normal((2, 1, 15))
    a += 0.4
    totals = np.bincount(clusters, weights=(a - b)[0])
    sizes = np.bincount(clusters)

    def statistic(t):
        mean = t.sum() / 15
        return abs(mean) / np.sqrt(np.square(t - mean * sizes).sum())

    seen = statistic(totals)
    all_signs = [statistic(totals * signs) for signs in product([1, -1], repeat=8)]
    exact = np.mean(np.array(all_signs) >= seen - 1e-9)
    found = compute_contrast(a, b, clusters, draws=20000)
    assert found.p == pytest.approx(exact, abs=0.012)


def runs_only(seeds, rng):
    """Runs that differ for all users alike, but for a trace."""
    values = np.repeat(rng.standard_normal((seeds, 1)), 400, axis=1)
    return values + 1e-4 * rng.standard_normal(values.shape)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_where_the_runs_of_one_side_dominate_it_is_students_test_of_their_means(seeds):
    a = 1.2 + runs_only(seeds, np.random.default_rng(3))
    found = compute_contrast(a, np.zeros((2, 400)), np.arange(400), draws=20000)
    known = stats.ttest_1samp(a.mean(axis=1), 0.0)
    low, high = known.confidence_interval(0.95)
    assert found.p == pytest.approx(known.pvalue, rel=0.1)
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


def test_where_the_runs_of_both_sides_dominate_it_is_the_behrens_fisher_test_of_their_means():
    rng = np.random.default_rng(3)
    a, b = 1.5 + runs_only(6, rng), runs_only(5, rng)
    found = compute_contrast(a, b, np.arange(400), draws=20000)
    means = [x.mean(axis=1) for x in (a, b)]
    errors = [stats.sem(m) * rng.standard_t(m.size - 1, 400_000) for m in means]
    drawn = errors[0] - errors[1]
    seen = means[0].mean() - means[1].mean()
    assert found.p == pytest.approx(np.mean(np.abs(drawn) >= abs(seen)), rel=0.1)
    width = np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    assert found.high - found.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_with_as_many_runs_a_side_it_is_students_test_between_one_sides_degrees_and_welchs(seeds):
    rng = np.random.default_rng(3)
    a, b = 4 + runs_only(seeds, rng), runs_only(seeds, rng)
    found = compute_contrast(a, b, np.arange(400), draws=20000)
    welch = stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False)
    degrees = pool_degrees(compute_components([a, b], np.arange(400)).seeds)
    assert seeds - 1 < degrees < welch.df
    assert found.p == pytest.approx(2 * stats.t.sf(welch.statistic, degrees), rel=0.1)


def test_the_interval_of_one_run_is_that_of_the_mean_over_users():
    values = np.random.default_rng(4).standard_normal((1, 500))
    found = estimate_mean(values, np.arange(500), draws=8000)
    low, high = stats.t.interval(0.95, 499, values.mean(), stats.sem(values[0]))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    assert found.mean == pytest.approx(values.mean())


def test_repeated_cases_of_a_user_change_nothing():
    rng = np.random.default_rng(5)
    a, b = normal(rng, [3, 3], shift=0.1)
    clusters = rng.permutation(USERS)
    once = compute_contrast(a, b, clusters, margin=0.2)
    many = compute_contrast(
        *(np.repeat(x, 7, axis=1) for x in (a, b)), np.repeat(clusters, 7), margin=0.2
    )
    for name in ("difference", "low", "high", "p", "effect", "smallest", "equivalent"):
        assert getattr(many, name) == pytest.approx(getattr(once, name)), name
    assert (many.cases, many.clusters) == (7 * USERS, USERS)
    one, other = (np.repeat(x[:1], 7, axis=1) for x in (a, b))
    independent = compute_contrast(one, other, np.arange(7 * USERS))
    together = compute_contrast(one, other, np.repeat(clusters, 7))
    width = together.high - together.low
    assert independent.high - independent.low == pytest.approx(width / np.sqrt(7), rel=0.1)


def test_cases_with_nan_in_any_run_are_left_out():
    rng = np.random.default_rng(6)
    a, b = normal(rng, [2, 3])
    clusters = np.arange(USERS) // 2
    gaps_a, gaps_b = a.copy(), b.copy()
    gaps_a[1, 4] = gaps_b[2, 9] = gaps_b[0, 4] = np.nan
    keep = np.delete(np.arange(USERS), [4, 9])
    found = compute_contrast(gaps_a, gaps_b, clusters)
    assert found == compute_contrast(a[:, keep], b[:, keep], clusters[keep])
    assert found.cases == USERS - 2
    assert estimate_mean(gaps_b, clusters) == estimate_mean(b[:, keep], clusters[keep])
    assert pool_seed_variance([gaps_b]) == pool_seed_variance([b[:, keep]])


def test_units_and_a_common_level_change_nothing():
    a, b = normal(np.random.default_rng(7), [3, 3], shift=0.2)
    once = compute_contrast(a, b, np.arange(USERS), margin=0.3)
    other = compute_contrast(100 * a + 7, 100 * b + 7, np.arange(USERS), margin=30.0)
    for name in ("p", "effect", "equivalent"):
        assert getattr(other, name) == pytest.approx(getattr(once, name)), name
    for name in ("difference", "low", "high", "smallest"):
        assert getattr(other, name) == pytest.approx(100 * getattr(once, name)), name


def test_the_other_way_round_is_the_negative():
    a, b = normal(np.random.default_rng(8), [1, 1], shift=0.1)
    one, other = (compute_contrast(x, y, np.arange(USERS)) for x, y in ((a, b), (b, a)))
    assert other.difference == -one.difference
    assert other.effect == -one.effect
    assert other.p == pytest.approx(one.p)


def test_the_same_runs_in_another_order_do_not_differ():
    (a,) = normal(np.random.default_rng(9), [3])
    found = compute_contrast(a, a[[2, 0, 1]], np.arange(USERS), margin=0.5)
    assert (found.difference, found.effect, found.p) == (0.0, 0.0, 1.0)
    assert found.low < 0 < found.high


def test_a_difference_that_no_user_contradicts_is_certain():
    b = np.zeros((2, 40))
    found = compute_contrast(b + 0.25, b, np.arange(40), margin=0.3)
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.effect == np.inf
    assert found.p < 0.001
    assert found.equivalent is not None
    assert found.equivalent < 0.001


def test_draws_in_many_blocks_say_the_same(monkeypatch):
    a, b = normal(np.random.default_rng(10), [3, 3], shift=0.1)
    whole = compute_contrast(a, b, np.arange(USERS), draws=4000)
    monkeypatch.setattr(resampling, "BLOCK", 7 * USERS + 1)
    blocks = compute_contrast(a, b, np.arange(USERS), draws=4000)
    assert blocks.low == pytest.approx(whole.low, abs=0.02)
    assert blocks.p == pytest.approx(whole.p, abs=0.02)


def test_the_same_seed_gives_the_same_figures():
    a, b = normal(np.random.default_rng(11), [2, 2])
    assert compute_contrast(a, b, np.arange(USERS)) == compute_contrast(a, b, np.arange(USERS))
    assert compute_contrast(a, b, np.arange(USERS)) != compute_contrast(
        a, b, np.arange(USERS), seed=1
    )


def test_methods_are_equivalent_where_the_90_percent_interval_lies_within_the_margin():
    rng = np.random.default_rng(12)
    said = []
    for shift in np.linspace(0, 0.3, 12):
        a, b = normal(rng, [3, 3], shift=shift)
        found = compute_contrast(a, b, np.arange(USERS), margin=0.25, level=0.9)
        assert found.equivalent is not None
        assert (found.equivalent <= 0.05) == (found.low > -0.25 and found.high < 0.25)
        said.append(found.equivalent <= 0.05)
    assert any(said)
    assert not all(said)


def test_holm_by_hand():
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_holm([0.5, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert adjust_holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert adjust_holm([]) == []


def test_seed_variance_is_pooled_over_methods_with_two_runs_or_more():
    rows = [np.array([[1.0], [3.0]]), np.array([[0.0], [0.0], [6.0]]), np.array([[9.0]])]
    # Squares about the means are 2 and 24, degrees of freedom 1 and 2.
    assert pool_seed_variance(rows) == pytest.approx(26 / 3)
    assert pool_seed_degrees(rows) == 3
    assert pool_seed_variance(rows[2:]) is None


def test_a_known_seed_variance_stands_in_for_one_run():
    rng = np.random.default_rng(13)
    a, b = normal(rng, [1, 3], shift=0.3)
    clusters = np.arange(USERS)
    blind = compute_contrast(a, b, clusters)
    known = compute_contrast(a, b, clusters, seed_variance=0.01, seed_degrees=200)
    unsure = compute_contrast(a, b, clusters, seed_variance=0.01, seed_degrees=2)
    assert (blind.about, known.about) == ("models", "methods")
    assert known.p > blind.p
    assert known.smallest > blind.smallest
    spread = [x.high - x.low for x in (blind, known, unsure)]
    assert spread[0] < spread[1] < spread[2]
    half = 1.96 * np.sqrt(compute_components([a, b], clusters).variance + 0.01)
    assert known.high - known.low == pytest.approx(2 * half, rel=0.05)
    full = compute_contrast(b, b[::-1] + 0.1, clusters)
    assert full == compute_contrast(b, b[::-1] + 0.1, clusters, seed_variance=9.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": np.zeros(10)}, "one row a run"),
        ({"a": np.zeros((0, 10))}, "one row a run"),
        ({"b": np.zeros((2, 9))}, "9 cases"),
        ({"clusters": np.arange(9)}, "10 cases"),
        ({"clusters": np.arange(10.0)}, "float64"),
        ({"a": np.full((2, 10), np.inf)}, "infinite"),
        ({"a": np.full((2, 10), np.nan)}, "0 of 10 cases"),
        ({"clusters": np.zeros(10, dtype=int)}, "at least two"),
        ({"margin": 0.0}, "margin=0.0"),
        ({"level": 95}, "level=95"),
        ({"draws": 5}, "draws=5"),
        ({"seed_variance": -1.0}, "seed_variance=-1.0"),
        ({"seed_variance": 1.0, "seed_degrees": 0}, "seed_degrees=0"),
        ({"size": 0.0}, "size=0.0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(change, words):
    given = {"a": np.zeros((2, 10)), "b": np.ones((2, 10)), "clusters": np.arange(10)} | change
    with pytest.raises(DataError, match=words) as caught:
        compute_contrast(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ps", [[0.1, np.nan], [1.5], [-0.1]])
def test_holm_refuses_what_is_no_p(ps):
    with pytest.raises(DataError, match="between 0 and 1"):
        adjust_holm(ps)


def test_arrays_without_cases_have_no_seed_variance():
    with pytest.raises(DataError, match="no case"):
        pool_seed_variance([np.full((2, 3), np.nan)])
    with pytest.raises(DataError, match="one row a run"):
        pool_seed_variance([np.zeros(3)])


# Simulation: bounds hold for the seeds given here; benchmarks/quality/statistics.md has more.


@pytest.mark.parametrize(("seeds", "spread"), list(product([2, 3, 5], [0.05, 0.3])))
def test_the_interval_covers_the_true_difference(seeds, spread):
    covered = []
    for number in range(160):
        rng = np.random.default_rng([seeds, number])
        a, b = normal(rng, [seeds, seeds], shift=0.1, spread=spread)
        found = compute_contrast(a, b, np.arange(USERS), draws=200, seed=number, size=None)
        covered.append(found.low <= 0.1 <= found.high)
    assert np.mean(covered) >= 0.915


@pytest.mark.parametrize("make", [hits, heavy, lambda rng, runs: normal(rng, [runs])[0]])
def test_runs_of_one_method_do_not_differ_significantly(make):
    rejected = {2: [], 3: [], 5: []}
    for number in range(40):
        rng = np.random.default_rng([21, number])
        values = make(rng, 20)
        for size, said in rejected.items():
            groups = np.split(rng.permutation(20)[: 20 // size * size], 20 // size)
            said += [
                compute_contrast(
                    values[x], values[y], np.arange(USERS), draws=100, seed=number, size=None
                ).p
                <= 0.05
                for x, y in list(zip(groups[::2], groups[1::2], strict=False))[:2]
            ]
    for said in rejected.values():  # each run stands in one comparison
        assert np.mean(said) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(said))


def test_single_runs_of_one_method_need_the_spread_over_seeds():
    blind, pooled = [], []
    for number in range(120):
        rng = np.random.default_rng([22, number])
        values, *others = normal(rng, [6, 3, 3, 3], spread=0.15)
        known = {
            "seed_variance": pool_seed_variance(others),
            "seed_degrees": pool_seed_degrees(others),
        }
        for x, y in values.reshape(3, 2, 1, USERS):
            pooled.append(
                compute_contrast(x, y, np.arange(USERS), **known, draws=100, size=None).p <= 0.05
            )
        blind.append(compute_contrast(x, y, np.arange(USERS), draws=100, size=None).p <= 0.05)
    assert np.mean(blind) > 0.3  # what a test over users alone would say
    assert np.mean(pooled) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 240)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.1), (2, 0.3), (3, 0.3)])
def test_against_a_method_without_spread_size_coverage_and_equivalence_hold(seeds, spread):
    """All doubt on one side: 10 to 13 % were rejected with degrees from the estimate itself."""
    rejected, covered, close = [], [], []
    for number in range(250):
        rng = np.random.default_rng([seeds, 24, number])
        a, b = normal(rng, [seeds, 1], spread=0.0)
        a, b = a + spread * rng.standard_normal((seeds, 1)), np.repeat(b, 2, axis=0)
        found = compute_contrast(a, b, np.arange(USERS), draws=200, seed=number, size=None)
        rejected.append(found.p <= 0.05)
        covered.append(found.low <= 0 <= found.high)
        margin = 0.1 + 3 * spread  # the truth lies on it, so that every claim of less is wrong
        at = compute_contrast(
            a + margin, b, np.arange(USERS), margin=margin, draws=200, seed=number, size=None
        )
        assert at.equivalent is not None
        close.append(at.equivalent <= 0.05)
    bound = 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(rejected))
    assert np.mean(rejected) <= bound
    assert np.mean(covered) >= 1 - bound
    assert np.mean(close) <= bound
