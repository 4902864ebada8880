"""The generated sets satisfy the formulas in their docstrings, and depend on options and seed alone."""

import functools
import math

import pytest
import torch

from liouville.data import load
from liouville.data.planar import _peaks

PLANAR = ("swiss-roll", "double-moons", "double-circles", "ellipses", "peaks")
EPS = torch.finfo(torch.float64).eps


@functools.cache
def exact(name, **options):
    return load(name, dtype=torch.float64, **options)


def everything(split):
    return torch.cat((split.x_train, split.x_test)), torch.cat((split.y_train, split.y_test))


def polar(x):
    return x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])


def rows(x):
    return set(map(tuple, x.tolist()))


def spiral_angle_error(x, y, turns_per_radius):
    """Distance of each noiseless point from the angle that its radius prescribes, as an arc length."""
    r, angle = polar(x)
    expected = turns_per_radius * torch.where(y == 1, r, r - 0.2)
    return (2 * r * torch.sin((angle - expected) / 2)).abs()


@pytest.mark.parametrize("test", ["interleaved", "fresh"])
def test_noiseless_hdnn_swiss_roll_lies_on_the_two_spirals(test):
    x, y = everything(split := exact("swiss-roll", noise=0.0, test=test))
    m = 4000
    assert len(split.x_train) == len(split.x_test) == m
    r, _ = polar(x)
    assert r[y == 1].max() <= 1 + EPS and r[y == 0].min() >= 0.2 - EPS and r[y == 0].max() <= 1.2 + 2 * EPS
    # theta reaches 4 pi, so the rounding of an angle is up to 4 pi eps, and r adds a few eps times 4 pi
    assert spiral_angle_error(x, y, 4 * math.pi * (m - 1) / m).max() < 100 * EPS


def test_interleaved_hdnn_points_are_the_grid_of_the_formula():
    x, y = everything(exact("swiss-roll", noise=0.0, test="interleaved"))
    grid = torch.linspace(0, 1, 4000, dtype=torch.float64)
    for label, offset in ((1, 0.0), (0, 0.2)):
        r = polar(x[y == label])[0].sort().values
        assert torch.allclose(r, grid + offset, rtol=0, atol=10 * EPS)


def test_meganet_swiss_roll_is_the_odd_and_even_rows_of_the_stacked_spirals():
    split = exact("swiss-roll", version="meganet", noise=0.0, test="interleaved")
    assert len(split.x_train) == len(split.x_test) == 513
    theta = torch.arange(513, dtype=torch.float64) * 4 * math.pi / 512
    r = torch.arange(513, dtype=torch.float64) / 512
    circle = torch.stack((theta.cos(), theta.sin()), 1)
    x = torch.cat((r[:, None] * circle, (r[:, None] + 0.2) * circle))
    y = torch.tensor([1] * 513 + [0] * 513)
    for got, expected in ((split.x_train, x[0::2]), (split.x_test, x[1::2])):
        assert torch.allclose(got, expected, rtol=0, atol=50 * EPS)
    assert torch.equal(split.y_train, y[0::2]) and torch.equal(split.y_test, y[1::2])


@pytest.mark.parametrize("version", ["hdnn", "meganet"])
def test_fresh_changes_the_test_part_only(version):
    fresh = load("swiss-roll", version=version)
    paper = load("swiss-roll", version=version, test="interleaved")
    assert torch.equal(fresh.x_train, paper.x_train) and torch.equal(fresh.y_train, paper.y_train)
    assert len(fresh.x_test) == len(paper.x_test)
    assert abs(int((fresh.y_test == 1).sum()) - int((fresh.y_test == 0).sum())) <= 1
    assert not rows(fresh.x_test) & rows(fresh.x_train)


def test_swiss_roll_noise_has_the_standard_deviation_asked_for():
    noisy, clean = exact("swiss-roll", noise=0.05), exact("swiss-roll", noise=0.0)
    assert torch.equal(noisy.y_train, clean.y_train)
    for part in ("x_train", "x_test"):
        noise = getattr(noisy, part) - getattr(clean, part)
        # 8000 draws: the standard deviation is known to 1 / sqrt(16000) = 0.8 %; five of those
        assert noise.std().item() == pytest.approx(0.05, rel=0.04)
        assert abs(noise.mean().item()) < 5 * 0.05 / math.sqrt(8000)


def test_spirals_stay_apart_by_what_the_docstring_says():
    x, y = everything(exact("swiss-roll", noise=0.0))
    assert torch.cdist(x[y == 0], x[y == 1]).min() > 0.16


def test_double_moons_lie_within_the_noise_of_their_half_circles():
    x, y = everything(split := exact("double-moons"))
    assert len(split.x_train) == len(split.x_test) == 4000
    theta = 3.14 * torch.arange(2000, dtype=torch.float64) / 2000
    upper, lower = (theta.cos(), theta.sin()), (1 - theta.cos(), 0.5 - theta.sin())
    for label, moon in ((0, upper), (1, lower)):
        left = torch.stack(moon, 1)
        right = left + torch.tensor([2.0, 0.0])
        far = [torch.cdist(x[y == label], arc, p=math.inf).min(1).values for arc in (left, right)]
        assert torch.minimum(*far).max() <= 0.15
    clean, labels = everything(exact("double-moons", noise=0.0))
    expected = torch.cat((torch.stack(upper, 1), torch.stack(upper, 1) + torch.tensor([2.0, 0.0])))
    got = clean[labels == 0]
    # every formula point is there: nearest distance is zero both ways, up to rounding
    distance = torch.cdist(got, expected, compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(0).values.max() < 10 * EPS and distance.min(1).values.max() < 10 * EPS


def test_double_circles_never_overlap():
    for seed in range(3):
        x, y = everything(exact("double-circles", seed=seed))
        r, _ = polar(x)
        ring = r.round()
        assert (r - ring).abs().max() < 0.3 * math.sqrt(2)
        assert ring.unique(return_counts=True)[1].tolist() == [2000] * 4
        assert torch.equal((ring.long() - 1) % 2, y)


def test_noiseless_double_circles_have_the_angles_of_the_formula():
    x, _ = everything(exact("double-circles", noise=0.0, points=80))
    _, angle = polar(x)
    expected = 4 * 3.14 * torch.arange(20, dtype=torch.float64) / 20
    turns = torch.remainder(expected, 2 * math.pi).sort().values.repeat_interleave(4)
    assert torch.allclose(torch.remainder(angle, 2 * math.pi).sort().values, turns, rtol=0, atol=100 * EPS)


@pytest.mark.parametrize("name", ["swiss-roll", "double-moons", "double-circles"])
def test_the_papers_points_are_balanced_over_both_parts(name):
    options = {"test": "interleaved"} if name == "swiss-roll" else {}
    split = load(name, **options)
    _, y = everything(split)
    assert y.bincount().tolist() == [4000] * 2
    # the halves are drawn without replacement: standard deviation sqrt(8000)/4 = 22.4; six of those
    assert abs(int(split.y_train.sum()) - 2000) < 135


def test_ellipses_have_the_radii_of_the_formula():
    split = exact("ellipses")
    assert split.y_train.bincount().tolist() == [1000, 1000] and split.y_test.bincount().tolist() == [
        200,
        200,
    ]
    x, y = everything(split)
    r = torch.hypot(x[:, 0], x[:, 1] / 0.4)
    assert r[y == 0].max() < 1 < r[y == 1].min() and r.max() < 2
    # uniform: mean 1/2 with standard deviation sqrt(1/12/1200) = 0.0083; five of those
    assert (r - y).mean().item() == pytest.approx(0.5, abs=0.042)
    assert not rows(split.x_train) & rows(split.x_test)


def test_ellipses_in_total():
    split = load("ellipses", counts="total")
    assert split.y_train.bincount().tolist() == [500, 500] and split.y_test.bincount().tolist() == [100, 100]


def test_matlab_peaks_has_its_known_extremes():
    """The well-known extremes of peaks are 8.1062 near (-0.009, 1.581) and -6.5511 near (0.228, -1.626)."""
    line = torch.linspace(-3, 3, 3001, dtype=torch.float64)
    z = _peaks(torch.cartesian_prod(line[1400:1600], line[2200:2400]))
    assert z.max().item() == pytest.approx(8.1062, abs=1e-4)
    z = _peaks(torch.cartesian_prod(line[1500:1700], line[600:750]))
    assert z.min().item() == pytest.approx(-6.5511, abs=1e-4)
    assert _peaks(torch.zeros(1, 2, dtype=torch.float64)).item() == pytest.approx(3 / math.e - 1 / (3 * math.e))


def test_peaks_labels_are_the_five_value_bins():
    split = exact("peaks")
    line = torch.linspace(-3, 3, 256, dtype=torch.float64)
    z = _peaks(torch.cartesian_prod(line, line))
    low, width = z.min(), (z.max() - z.min()) / 5
    for x, y in ((split.x_train, split.y_train), (split.x_test, split.y_test)):
        label = ((_peaks(x) - low) / width).ceil().sub(1).clamp(0, 4).long()
        assert torch.equal(label, y)
        assert x.abs().max() <= 3
    assert split.y_train.bincount().tolist() == [1000] * 5 and split.y_test.bincount().tolist() == [200] * 5


def test_peaks_trains_on_the_grid_and_tests_off_it():
    split = exact("peaks")
    on_grid = (split.x_train + 3) * 255 / 6
    assert (on_grid - on_grid.round()).abs().max() < 1e-10
    assert not rows(split.x_train) & rows(split.x_test)
    first_commit = exact("peaks", test=200, test_on_grid=True)
    assert first_commit.y_test.bincount().tolist() == [40] * 5
    on_grid = (first_commit.x_test + 3) * 255 / 6
    assert (on_grid - on_grid.round()).abs().max() < 1e-10
    assert torch.equal(first_commit.x_train, split.x_train)


@pytest.mark.parametrize("name", PLANAR)
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = load(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = load(name, seed=5), load(name, seed=6)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(one, part), getattr(again, part))
    assert not torch.equal(one.x_train, other.x_train) and not torch.equal(one.x_test, other.x_test)


@pytest.mark.parametrize("name", PLANAR)
def test_dtype_rounds_the_same_points_and_train_and_test_are_disjoint(name):
    single, double = load(name), exact(name)
    assert single.x_train.dtype == torch.float32 and double.x_train.dtype == torch.float64
    assert torch.equal(double.x_train.float(), single.x_train) and torch.equal(double.y_test, single.y_test)
    assert single.x_train.shape[1:] == (2,) and single.name == name
    assert not rows(single.x_train) & rows(single.x_test)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "swiss-roll",
            {"version": "p1"},
            "unknown swiss-roll version 'p1'; known swiss-roll versions: hdnn, meganet.",
        ),
        (
            "swiss-roll",
            {"test": "new"},
            "unknown swiss-roll test 'new'; known swiss-roll tests: fresh, interleaved.",
        ),
        ("swiss-roll", {"points": 9}, "points must be a multiple of 2 of at least 8, got 9."),
        ("swiss-roll", {"noise": -1}, "noise must be a number of at least 0, got -1."),
        ("double-moons", {"points": 10}, "points must be a multiple of 4 of at least 8, got 10."),
        ("double-circles", {"noise": "big"}, "noise must be a number of at least 0, got 'big'."),
        (
            "ellipses",
            {"counts": "each"},
            "unknown ellipses count 'each'; known ellipses counts: per-class, total.",
        ),
        ("ellipses", {"train": 0}, "train must be a whole number of at least 2, got 0."),
        ("ellipses", {"test": 0}, "test must be a whole number of at least 1, got 0."),
        ("peaks", {"train": 4}, "train must be a whole number of at least 5, got 4."),
        ("peaks", {"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1."),
    ],
)
def test_option_values_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError) as caught:
        load(name, **options)
    assert str(caught.value) == message
