"""Two-dimensional data sets that are generated, each by the formula that its docstring states.

All are sets on which depth matters: classes that wind around each other. Points are computed in float64 with
a generator of their own, seeded by ``seed``, and then converted to ``dtype``; torch's global random state is
neither read nor changed.

Sources: the public code of Galimberti et al., *Hamiltonian Deep Neural Networks Guaranteeing Non-vanishing
Gradients by Design* (HamiltonianNet, data/datasets.py), and of Haber and Ruthotto, *Stable Architectures for
Deep Neural Networks* (Meganet.m, data/setup*.m). A code is not its paper: where only the code is known, the
docstring says "public code".
"""

from __future__ import annotations

__all__ = ["double_circles", "double_moons", "ellipses", "peaks", "swiss_roll"]

import math
from typing import Any

import torch
from torch import Tensor

from liouville.data.numbers import real_number, whole_number
from liouville.data.split import Split
from liouville.machine import require_memory
from liouville.names import lookup

_F64 = torch.float64
_BYTES = 200  # of a point while it is drawn: coordinates, noise, label, order, and what they are made of
_CODES_PI = 3.14  # the public code of the double moons and double circles writes 3.14, not pi


def swiss_roll(
    *,
    version: str = "hdnn",
    points: int | None = None,
    noise: float = 0.01,
    test: str = "fresh",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Split:
    """Two interleaved spirals, (x_1, x_2) = r (cos theta, sin theta), two turns each.

    With m points per class and i = 0 ... m - 1,

        label 1: r_i = i / (m - 1),          label 0: r_i = 0.2 + i / (m - 1),
        theta_i = 4 pi i / m  ("hdnn"),      theta_i = 4 pi i / (m - 1)  ("meganet"),

    and every coordinate gets independent Gaussian noise. With ``test="interleaved"``, as in the public codes,
    every second point is a test point: of the shuffled points ("hdnn", m = 4000), or of the rows, label 1
    stacked on label 0 ("meganet", m = 513). Such test points are steps of the grid that the training points
    were taken from; without noise there is next to nothing to generalise to. ``test="fresh"`` keeps the same
    training points and draws as many test points anew: i / (m - 1) becomes u ~ U(0, 1), the labels are
    balanced, and the noise is their own.

    The public codes' data is ``noise=0, test="interleaved"``. The spirals are nowhere closer than 0.16, which
    is 16 standard deviations of the default noise: it leaves the classes apart.

    Args:
        version: "hdnn" (HamiltonianNet; 4,000 training and 4,000 test points) or "meganet" (Meganet.m; 513
            and 513).
        points: number of points of the formula, 2 m, of which half are the training part; even; None takes
            the version's own.
        noise: standard deviation of the noise.
        test: "fresh" or "interleaved".
        seed: of this data set's own generator.
        dtype: of the inputs.

    Reference: HamiltonianNet swiss_roll; Meganet.m setupSwissRoll, "similar to the one described in Sec. 6.2"
    of Haber and Ruthotto (2018).
    """
    default = lookup({"hdnn": 8000, "meganet": 1026}, version, "swiss-roll version")
    fresh = lookup({"fresh": True, "interleaved": False}, test, "swiss-roll test")
    m = _rows("points", default if points is None else points, low=8, multiple_of=2) // 2
    noise = real_number("noise", noise, low=0.0)
    generator = _generator(seed)
    end = 4 * math.pi * (m - 1) / m if version == "hdnn" else 4 * math.pi
    y = torch.arange(2 * m) < m
    x = _spiral(torch.linspace(0, 1, m, dtype=_F64).repeat(2), y, end)
    x = x + noise * torch.randn(x.shape, generator=generator, dtype=_F64)
    order = torch.randperm(2 * m, generator=generator) if version == "hdnn" else torch.arange(2 * m)
    train, rest = order[0::2], order[1::2]
    x_test, y_test = x[rest], y[rest]
    if fresh:
        y_test = torch.arange(m) % 2 == 1
        x_test = _spiral(torch.rand(m, generator=generator, dtype=_F64), y_test, end)
        x_test = x_test + noise * torch.randn(x_test.shape, generator=generator, dtype=_F64)
    names = ("outer spiral", "inner spiral")
    x_train, y_train = x[train].to(dtype), y[train].long()
    return Split(x_train, y_train, x_test.to(dtype), y_test.long(), "swiss-roll", 2, label_names=names)


def double_moons(
    *, points: int = 8000, noise: float = 0.15, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Two pairs of interleaved half circles, the second pair two units to the right.

    With t_i = 3.14 i / m, i = 0 ... m - 1, m = points / 4,

        label 0: (cos t, sin t),          (2 + cos t, sin t),
        label 1: (1 - cos t, 0.5 - sin t), (3 - cos t, 0.5 - sin t),

    and every coordinate gets independent noise, uniform in [-noise, noise]. The points are shuffled; those
    with even index are the training part, the others the test part.

    Args:
        points: number of points, a multiple of 4, half of them for training.
        noise: half-width of the noise; 0.15 in the public code.
        seed: of this data set's own generator.
        dtype: of the inputs.

    Reference: HamiltonianNet double_moons (8,000 points).
    """
    m = _rows("points", points, low=8, multiple_of=4) // 4
    t = _CODES_PI * torch.arange(m, dtype=_F64) / m
    upper = torch.stack((t.cos(), t.sin()), 1)
    lower = torch.stack((1 - t.cos(), 0.5 - t.sin()), 1)
    right = torch.tensor([2.0, 0.0], dtype=_F64)
    x = torch.cat((upper, lower, upper + right, lower + right))
    y = torch.tensor([0, 1, 0, 1]).repeat_interleave(m)
    return _shuffled(x, y, noise, seed, dtype, "double-moons", ("upper moons", "lower moons"))


def double_circles(
    *, points: int = 8000, noise: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Four concentric rings of radius r = 1, 2, 3, 4 with labels 0, 1, 0, 1: r (cos t, sin t) + noise.

    With t_i = 4 * 3.14 i / m, i = 0 ... m - 1, m = points / 4 (two turns), and independent noise on every
    coordinate, uniform in [-noise, noise]. No point leaves its ring by more than noise sqrt(2), which is
    below 1/2 for noise < 0.353: at the default 0.3 the rings never overlap and 100 % is attainable. The
    points are shuffled; those with even index are the training part, the others the test part.

    Args:
        points: number of points, a multiple of 4, half of them for training.
        noise: half-width of the noise; 0.3 in the public code.
        seed: of this data set's own generator.
        dtype: of the inputs.

    Reference: HamiltonianNet double_circles (8,000 points).
    """
    m = _rows("points", points, low=8, multiple_of=4) // 4
    t = 4 * _CODES_PI * torch.arange(m, dtype=_F64) / m
    circle = torch.stack((t.cos(), t.sin()), 1)
    x = torch.cat([radius * circle for radius in (1, 2, 3, 4)])
    y = torch.tensor([0, 1, 0, 1]).repeat_interleave(m)
    return _shuffled(x, y, noise, seed, dtype, "double-circles", ("rings 1 and 3", "rings 2 and 4"))


def ellipses(
    *,
    train: int = 1000,
    test: int = 200,
    counts: str = "per-class",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Split:
    """An ellipse inside an elliptic annulus: (x_1, x_2) = r (cos theta, 0.4 sin theta), theta ~ U(0, 2 pi).

        label 0: r ~ U(0, 1),        label 1: r ~ 1 + U(0, 1).

    The classes touch at r = 1. Every point is drawn independently, the test part (which the public code calls
    test and the paper uses for validation) like the training part; labels alternate.

    Args:
        train: number of training points, 1,000 in the public code.
        test: number of test points, 200 in the public code.
        counts: "per-class", as in the public code (2,000 and 400 points by default), or "total" (1,000 and
            200 points by default). Which of the two the paper used is not established.
        seed: of this data set's own generator.
        dtype: of the inputs.

    Reference: Meganet.m setupCircle; Haber and Ruthotto (2018), Sec. 6.1.
    """
    times = lookup({"per-class": 2, "total": 1}, counts, "ellipses count")
    generator = _generator(seed)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(number) % 2
        r, u = torch.rand(2, number, generator=generator, dtype=_F64)
        r, theta = r + y, 2 * math.pi * u
        return torch.stack((r * theta.cos(), 0.4 * r * theta.sin()), 1).to(dtype), y

    x_train, y_train = draw(times * _rows("train", train, low=2))
    x_test, y_test = draw(times * _rows("test", test, low=1))
    return Split(x_train, y_train, x_test, y_test, "ellipses", 2, label_names=("inner ellipse", "outer annulus"))


def peaks(
    *,
    train: int = 5000,
    test: int = 1000,
    test_on_grid: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Split:
    """Five level sets of MATLAB's ``peaks`` on [-3, 3]^2, the same number of points in each.

        z = 3 (1 - x)^2 exp(-x^2 - (y + 1)^2) - 10 (x/5 - x^3 - y^5) exp(-x^2 - y^2)
            - 1/3 exp(-(x + 1)^2 - y^2)

    The range of z on a 256 x 256 grid is cut into five intervals of equal width; label k means edge_k < z <=
    edge_{k+1}. Training points are grid points, drawn with replacement within each class (the public code;
    how the paper draws is not established). Drawn that way, test points would often *be* training points: the
    top and bottom classes have few grid points. So test points are by default drawn anew, uniformly in the
    square given the class, off the grid. ``test_on_grid=True`` draws them like the training points; with
    ``test=200`` that is the validation set of Meganet.m's first commit.

    Args:
        train: number of training points, 5,000 in Meganet.m's first commit; labels cycle through 0 ... 4.
        test: number of test points.
        test_on_grid: draw the test points from the same grid as the training points.
        seed: of this data set's own generator.
        dtype: of the inputs.

    Reference: Meganet.m setupPeaks (first commit: 5,000 training points); Haber and Ruthotto (2018), Sec.
    6.3.
    """
    train, test = _rows("train", train, low=5), _rows("test", test, low=5)
    generator = _generator(seed)
    line = torch.linspace(-3, 3, 256, dtype=_F64)
    grid = torch.cartesian_prod(line, line)
    z = _peaks(grid)
    edges = torch.linspace(float(z.min()), float(z.max()), 6, dtype=_F64)[1:-1]
    members = [grid[torch.bucketize(z, edges) == k] for k in range(5)]

    def draw(number: int, on_grid: bool) -> tuple[Tensor, Tensor]:
        y = torch.arange(number) % 5
        x = torch.empty(number, 2, dtype=_F64)
        for k in range(5):
            places = (y == k).nonzero().flatten()
            if on_grid:
                x[places] = members[k][torch.randint(len(members[k]), places.shape, generator=generator)]
            else:
                x[places] = _uniform_in_class(k, len(places), edges, generator)
        return x.to(dtype), y

    x_train, y_train = draw(train, True)
    x_test, y_test = draw(test, test_on_grid)
    return Split(x_train, y_train, x_test, y_test, "peaks", 5)


def _rows(name: str, value: Any, low: int, multiple_of: int = 1) -> int:
    """A number of points, as `whole_number` takes it, that memory has room for."""
    number = whole_number(name, value, low, multiple_of=multiple_of)
    require_memory(_BYTES * number, f"{number:,} points", f"take fewer ({name})")
    return number


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(whole_number("seed", seed, low=0, high=2**32 - 1))


def _spiral(u: Tensor, inner: Tensor, end: float) -> Tensor:
    """r (cos theta, sin theta) with theta = end u and r = u on the inner spiral, 0.2 + u on the outer one."""
    r = torch.where(inner, u, u + 0.2)
    return torch.stack((r * torch.cos(end * u), r * torch.sin(end * u)), 1)


def _shuffled(
    x: Tensor, y: Tensor, noise: float, seed: int, dtype: torch.dtype, name: str, label_names: tuple[str, ...]
) -> Split:
    """x + U(-noise, noise), shuffled; even index training, odd index test."""
    noise = real_number("noise", noise, low=0.0)
    generator = _generator(seed)
    x = (x + noise * (2 * torch.rand(x.shape, generator=generator, dtype=_F64) - 1)).to(dtype)
    order = torch.randperm(len(x), generator=generator)
    train, test = order[0::2], order[1::2]
    return Split(x[train], y[train], x[test], y[test], name, 2, label_names=label_names)


def _peaks(points: Tensor) -> Tensor:
    """MATLAB's peaks at points (n, 2)."""
    x, y = points.unbind(1)
    return (
        3 * (1 - x) ** 2 * torch.exp(-(x**2) - (y + 1) ** 2)
        - 10 * (x / 5 - x**3 - y**5) * torch.exp(-(x**2) - y**2)
        - torch.exp(-((x + 1) ** 2) - y**2) / 3
    )


def _uniform_in_class(k: int, number: int, edges: Tensor, generator: torch.Generator) -> Tensor:
    """``number`` points uniform in the part of [-3, 3]^2 whose label is k, by rejection."""
    found = torch.empty(0, 2, dtype=_F64)
    while len(found) < number:
        points = 6 * torch.rand(8192, 2, generator=generator, dtype=_F64) - 3
        found = torch.cat((found, points[torch.bucketize(_peaks(points), edges) == k]))
    return found[:number]
