"""Features by depth with a slider, and figures that show themselves in a notebook."""

import pytest
import torch

import liouville as lv
from liouville.report.depths import through_depths

pytest.importorskip("matplotlib")

NETWORKS = {
    "two classes": ({"inputs": 2, "classes": 2, "features": 4, "layers": 5, "T": 1.0}, (2,), 2),
    "three classes": ({"inputs": 3, "classes": 3, "features": 6, "layers": 80, "T": 1.0}, (3,), 3),
    "two features": ({"inputs": 2, "classes": 2, "features": 2, "layers": 1, "T": 1.0}, (2,), 2),
    "images": (
        {"inputs": (1, 8, 8), "classes": 3, "features": (4, 8), "layers": 2, "T": 1.0, "conv": lv.zoo.Images()},
        (1, 8, 8),
        3,
    ),
}


def case(name, samples=30):
    options, shape, classes = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    network = lv.classifier("h2", generator=generator, **options).double()
    x = torch.randn((samples, *shape), generator=generator, dtype=torch.float64)
    return network, x, torch.arange(samples) % classes


@pytest.mark.parametrize("name", NETWORKS)
def test_points_are_projections_of_the_features_in_one_basis(name):
    """Distances in a projection are at most those of the features; of all axes together they are equal."""
    network, x, y = case(name)
    found = through_depths(network, x, y, positions=20)
    assert len(found.labels) == len(found.points) <= 20 and found.points.shape[1] == len(x)
    flows = list(network.flows())
    ends = [flow.layers for flow in flows]
    assert found.labels[-1].endswith(f"layer {ends[-1]} of {ends[-1]}, t = {flows[-1].T:.3g}")
    with torch.no_grad():
        last = network.features(x).flatten(1)
    shown, true = torch.pdist(found.points[-1]), torch.pdist(last)
    slack = 100 * torch.finfo(torch.float64).eps * float(last.abs().max()) * last.shape[1]
    assert (shown <= true + slack).all()
    if last.shape[1] <= found.points.shape[2]:
        assert torch.allclose(shown, true, atol=slack)
    assert torch.equal(through_depths(network, x, y, positions=20).points, found.points)


def test_the_first_axis_tells_the_classes_apart_as_the_head_does():
    network, x, y = case("two classes")
    found = through_depths(network, x, y)
    with torch.no_grad():
        assert torch.equal(found.points[-1, :, 0] > found.plane, network(x).squeeze(1) > 0)


def test_explore_has_a_frame_for_each_depth_and_escapes_names():
    pytest.importorskip("plotly")
    network, x, y = case("two classes")
    figure = lv.report.explore(network, x, y, ("<b>one</b>", "two"))
    assert [step.label for step in figure.layout.sliders[0].steps] == list(through_depths(network, x, y).labels)
    assert len(figure.frames) == 6 and figure.data[0].name == "&lt;b&gt;one&lt;/b&gt;"
    assert sum(len(t.x) for t in figure.frames[-1].data if t.type == "scatter") == len(x)
    assert all(t.type == "scatter" for t in lv.report.explore(*case("two features")).data)
    line = lv.regressor("h2", inputs=2, outputs=1, features=4, layers=2, T=1.0)
    assert lv.report.explore(line, x.float(), x[:, :1].float()).data[0].marker.showscale


@pytest.mark.parametrize(
    ("x", "y", "names", "sentence"),
    [
        (torch.randn(0, 2), torch.zeros(0).long(), None, "a flow and a target for each sample"),
        (torch.randn(4, 2), torch.zeros(3).long(), None, "a flow and a target for each sample"),
        (torch.randn(4, 2), torch.tensor([0, 1, 2, 0]), ("a", "b"), "a name for each of 3 classes, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(x, y, names, sentence):
    pytest.importorskip("plotly")
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    with pytest.raises(ValueError, match=sentence):
        lv.report.explore(network, x, y, names)


def test_a_figure_shows_itself_at_its_own_size():
    import io

    from matplotlib.image import imread

    figure = lv.report.sensitivity_by_depth({"h2": torch.ones(5, 3)})
    content, size = figure._repr_png_()
    width, height = figure.get_size_inches()
    assert size == {"width": round(96 * width), "height": round(96 * height)}
    assert imread(io.BytesIO(content)).shape[1] == pytest.approx(150 * width, abs=1)


def test_training_curves_take_a_history_or_its_records():
    epochs = [lv.train.Epoch(k, 1 / k, 0.0, 0.5, 1.0, 0.1, 1.5 / k, 0.5, 0.1) for k in (1, 2, 3)]
    history = lv.train.History("accuracy", epochs, best_epoch=2)
    titles = [
        figure.get_suptitle()
        for figure in (
            lv.report.training_curves(history),
            lv.report.training_curves(history.records(), "accuracy", 2),
        )
    ]
    assert titles[0] == titles[1] and "the best epoch, 2 of 3" in titles[0]
