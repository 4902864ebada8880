"""Figures of the theory: they draw the numbers they were given, and say the least of them."""

import runpy
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.report import (
    growth_over_time,
    lyapunov_spectra,
    phase_planes,
    sensitivity_by_depth,
    sensitivity_by_iteration,
    singular_values_by_depth,
    spectra_over_regions,
)
from measure import generator, randn

pytest.importorskip("matplotlib")


def panel_title(axes):
    return axes.get_title(loc="left")


def lines_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def test_norms_by_depth_run_from_the_last_layer_to_the_first():
    """Entry j belongs to l = N - j; the identity of j = N is not drawn."""
    norms = torch.tensor([[8.0, 6.0, 4.0], [2.0, 3.0, 9.0], [1.5, 1.0, 2.0], [1.0, 1.0, 1.0]])  # j = 0 ... 3
    figure = sensitivity_by_depth({"one": norms, "two": norms.sqrt()})
    axes = figure.axes[0]
    (line,) = lines_of(axes)
    assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == [1.5, 3.0, 6.0]
    assert axes.get_yscale() == "log" and panel_title(axes) == "one: 1 to 9"
    assert figure.get_suptitle() == "Median norm through all layers: 6 (one), 2.449 (two)"
    bounds = [line for line in axes.lines if list(line.get_ydata()) == [1.0, 1.0]]
    assert len(bounds) == 1 and axes.get_ylim() == figure.axes[1].get_ylim()


def test_the_band_reaches_from_the_least_to_the_largest_sample():
    norms = torch.stack([torch.full((5,), float(k)) * torch.arange(1, 6) for k in (3, 2, 1)])
    (band,) = sensitivity_by_depth({"one": norms}).axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == 2.0 and heights.max() == 15.0


def test_what_vanished_is_drawn_at_the_floor_and_batches_of_any_shape_are_samples():
    figure = sensitivity_by_depth({"dead": torch.zeros(5, 2, 3)})
    assert panel_title(figure.axes[0]) == "dead: 1e-30 to 1e-30"


def test_norms_by_iteration_draw_the_asked_depths():
    norms = torch.rand(3, 9, 4, generator=generator()) + 1
    figure = sensitivity_by_iteration([0, 10, 20], {"h2": norms}, lines=3)
    drawn = lines_of(figure.axes[0])
    assert [line.get_label() for line in drawn] == ["$l$ = 1", "$l$ = 4", "$l$ = 8"]
    for line, j in zip(drawn, (7, 4, 0), strict=True):
        assert list(line.get_xdata()) == [0, 10, 20]
        assert line.get_ydata() == pytest.approx(norms[:, j].median(1).values.tolist())
    with pytest.raises(ValueError, match=r"expected norms of 2 iterations, got \[3\]"):
        sensitivity_by_iteration([0, 10], {"h2": norms})


def test_the_waterfall_has_a_line_for_each_singular_value():
    spectra = torch.tensor([[[4.0, 0.25]], [[2.0, 0.5]], [[1.0, 1.0]]])
    figure = singular_values_by_depth({"h2": spectra})
    first, second = (
        lines_of(figure.axes[0]) or [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2][:2]
    )
    assert list(first.get_ydata()) == [2.0, 4.0] and list(second.get_ydata()) == [0.5, 0.25]
    assert figure.get_suptitle() == "Singular values through all layers: 0.25 to 4 (h2)"


def test_the_spectrum_stands_beneath_the_norms() -> None:
    """A dot for the median and a bar from the least to the largest of every exponent; the sum is in the title."""
    exponents = torch.tensor([[1.0, 0.0, -0.5], [3.0, 0.0, -0.5], [2.0, 0.25, -4.5]])
    figure = lyapunov_spectra({"one": torch.ones(5, 3)}, {"one": exponents})
    _, below = figure.axes
    dots = below.lines[0]
    assert list(dots.get_ydata()) == [2.0, 0.0, -0.5] and list(dots.get_xdata()) == [1, 2, 3]
    bars = [(segment[0][1], segment[1][1]) for segment in below.collections[0].get_segments()]
    assert bars == [(1.0, 3.0), (0.0, 0.25), (-4.5, -0.5)]
    assert "add up to 0.50 (one)" in " ".join(text.get_text() for text in figure.texts)
    assert lyapunov_spectra({"dead": torch.zeros(5, 3)}, {"dead": torch.full((3, 2), -torch.inf)}).axes
    for norms, spectra in (({}, {}), ({"one": torch.ones(5, 3)}, {"two": exponents})):
        with pytest.raises(ValueError, match="of the same networks"):
            lyapunov_spectra(norms, spectra)


@pytest.mark.parametrize("draw", [sensitivity_by_depth, singular_values_by_depth, spectra_over_regions])
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ValueError, match="there is no network to draw"):
        draw({})


def test_a_single_matrix_is_refused():
    with pytest.raises(ValueError, match="expected N \\+ 1 >= 2 matrices, got 1"):
        sensitivity_by_depth({"h2": torch.ones(1, 5)})


def test_phase_planes_draw_the_trajectories_and_the_direction_of_the_field():
    flow = lv.zoo.h2(2, layers=8, T=1.0, generator=generator()).double()
    y = randn(3, 2)
    figure = phase_planes({"h2": flow}, y, "title")
    axes = figure.axes[0]
    paths = [line for line in axes.lines if len(line.get_xdata()) == 9]
    trajectory = flow.trajectory(y).detach()
    for k, path in enumerate(paths):
        assert torch.equal(torch.tensor(path.get_xydata()), trajectory[:, k])
    (arrows,) = axes.collections
    points = torch.tensor(arrows.get_offsets())
    velocity = flow.field(points, type(flow.field.theta())(*(w[0] for w in flow.field.theta()))).detach()
    drawn = torch.stack((torch.tensor(arrows.U), torch.tensor(arrows.V)), -1).flatten(0, -2)
    assert torch.allclose(drawn * velocity.norm(dim=-1, keepdim=True), velocity, atol=1e-12)  # 0 at the origin
    assert len(paths) == 3 and figure.get_suptitle() == "title"


def test_phase_planes_need_a_plane():
    with pytest.raises(ValueError, match="expected a flow and points"):
        phase_planes({"h2": lv.zoo.h2(4, layers=2, T=1.0)}, torch.zeros(3, 4))


@pytest.mark.parametrize(
    "scheme, reaches, bar",
    [(lv.ForwardEuler(), (-2.0, 0.0), False), (lv.SymplecticEuler(), None, True), (lv.LeapfrogMidpoint(), None, True)],
)
def test_the_region_is_the_schemes_and_the_dots_are_the_values(scheme, reaches, bar):
    values = torch.tensor([[0.5j, -0.5j]])
    (axes,) = spectra_over_regions({"net": (scheme, values)}).axes
    dots = axes.collections[-1].get_offsets()
    assert sorted(dots[:, 1].tolist()) == [-0.5, 0.5]
    if reaches:
        x = torch.cat([torch.tensor(p.vertices[:, 0]) for p in axes.collections[0].get_paths() if len(p.vertices)])
        assert float(x.min()) == pytest.approx(reaches[0], abs=0.02) and float(x.max()) == pytest.approx(
            reaches[1], abs=0.02
        )
    ends = [line.get_ydata() for line in axes.lines if line.get_linewidth() > 5]
    assert bool(ends) == bar
    if bar:
        limit = lv.analysis.imaginary_limit(scheme)
        assert ends[0][1] == pytest.approx(limit, abs=0.02) and ends[0][0] == pytest.approx(-limit, abs=0.02)
    growth = float(lv.analysis.amplification(scheme, values).max())
    assert panel_title(axes) == f"net: growth ≤ {growth:.3g} a step"


def test_growth_over_time_draws_a_line_of_slope_one_through_the_end():
    t = torch.arange(1.0, 50.0)
    figure = growth_over_time(t, {"a": 2 * t, "b": t}, 1.0)
    first, second, guide = figure.axes[0].lines
    assert list(first.get_ydata()) == (2 * t).tolist() and list(second.get_ydata()) == t.tolist()
    assert list(guide.get_ydata()) == pytest.approx((2 * t).tolist())
    assert "power 1.000" in figure.get_suptitle()


def test_the_tutorial_draws_its_figure(tmp_path):
    script = Path(__file__).parents[2] / "docs" / "tutorials" / "sensitivities.py"
    runpy.run_path(str(script))["main"](tmp_path / "training.png", iterations=4, every=2)
    assert (tmp_path / "training.png").stat().st_size > 20_000


@pytest.mark.parametrize("draw", [sensitivity_by_depth, singular_values_by_depth])
def test_curves_without_names_are_refused(draw):
    with pytest.raises(TypeError, match=r"expected tensors by name, such as .*, got Tensor"):
        draw(torch.ones(3, 4))
