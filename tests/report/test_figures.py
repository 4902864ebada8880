"""Figures: there, of the right size, not uniform, true in their titles, and without traces in matplotlib's settings."""

import sys

import pytest
import torch

import liouville as lv
from liouville.report import style
from liouville.report.plane import _basis
from turns import one_in

matplotlib = pytest.importorskip("matplotlib")
numpy = pytest.importorskip("numpy")


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def network_for(split, **options):
    choice = {"model": "h2", "features": 4, "layers": 6, "T": 2.0} | options
    inputs = tuple(split.x_train.shape[1:])
    torch.manual_seed(0)
    if split.classes:
        return lv.classifier(inputs=inputs if len(inputs) > 1 else inputs[0], classes=split.classes, **choice)
    return lv.regressor(inputs=inputs[0], outputs=1, **choice)


def planar(name="double-moons"):
    split = lv.data.load(name, **({"train": 60, "test": 60} if name == "peaks" else {"points": 120}))
    return split, network_for(split)


def images(classes=3):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(30, 1, 8, 8, generator=generator), torch.arange(30) % classes
    return lv.data.Split(x, y, x, y, "images", classes)


def history_of(epochs=3):
    record = {"penalty": 0.0, "score": 0.8, "lr": 0.1, "validation_score": 0.7, "seconds": 0.1}
    return lv.train.History(
        "accuracy",
        [
            lv.train.Epoch(epoch=k, loss=1 / k, gradient_norm=2.0 / k, validation_loss=1.5 / k, **record)
            for k in range(1, epochs + 1)
        ],
        best_epoch=epochs,
    )


def title(figure):
    return figure.get_suptitle()


@pytest.mark.parametrize("name", one_in(2, ["double-moons", "peaks"]))
def test_all_figures_of_planar_data_are_written_and_show_something(tmp_path, name):
    split, network = planar(name)
    files = lv.report.draw_all(network, split, history_of(), tmp_path)
    assert [f.name for f in files] == ["training.png", "regions.png", "features.png"]
    for file in files:
        image = pixels(file)
        assert min(image.shape[:2]) > 400 and file.stat().st_size > 10_000
        assert len(numpy.unique((image[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 20


def test_svg_comes_beside_the_png(tmp_path):
    figure = lv.report.training_curves(history_of().records(), best_epoch=3)
    files = lv.report.save(figure, tmp_path / "curves.png", svg=True)
    assert [f.name for f in files] == ["curves.png", "curves.svg"]
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    assert pixels(files[0]).shape[1] == pytest.approx(9.6 * 150, abs=1)


def test_a_cloud_of_many_points_is_one_picture_in_the_svg(tmp_path):
    figure = style.canvas(3.0, 2.0)
    axes = figure.subplots()
    axes.scatter(*torch.rand(2, 2000))
    _, path = lv.report.save(figure, tmp_path / "cloud.png", svg=True)
    assert path.stat().st_size < 60_000 and "data:image/png" in path.read_text()


def test_the_same_picture_is_the_same_svg(tmp_path):
    drawn = [lv.report.training_curves(history_of().records(), best_epoch=3) for _ in range(2)]
    first, second = (lv.report.save(f, tmp_path / f"{i}.png", svg=True)[1] for i, f in enumerate(drawn))
    assert first.read_bytes() == second.read_bytes()


def test_drawing_leaves_matplotlib_as_it_was_and_pyplot_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    split, network = planar()
    lv.report.draw_all(network, split, history_of(), tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_drawing_changes_neither_the_network_nor_the_global_generator(tmp_path):
    split, network = planar()
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    lv.report.draw_all(network, split, history_of(), tmp_path)
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters()) and torch.equal(torch.get_rng_state(), state)


def test_the_curves_draw_the_records_and_the_title_names_the_best_epoch():
    records = history_of(5).records()
    figure = lv.report.training_curves(records, best_epoch=5)
    loss, accuracy, norm = figure.axes
    assert loss.get_yscale() == norm.get_yscale() == "log"
    assert list(loss.lines[0].get_ydata()) == [r["loss"] for r in records]
    assert list(loss.lines[1].get_ydata()) == [r["validation_loss"] for r in records]
    assert list(accuracy.lines[0].get_ydata()) == pytest.approx([80.0] * 5)
    assert list(norm.lines[0].get_ydata()) == [r["gradient_norm"] for r in records]
    assert title(figure) == "Validation accuracy 70.00 % at the best epoch, 5 of 5"
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["training", "validation", "gradient norm"]
    assert "validation loss 0.3; training loss 1 → 0.2 in 5 epochs" in key.get_title().get_text().replace("\n", " ")


@pytest.mark.parametrize("held", [True, False])
def test_curves_of_one_epoch_and_without_validation(held):
    record = history_of(1).records()[0]
    if not held:
        record |= {"validation_loss": None, "validation_accuracy": None}
    figure = lv.report.training_curves([record], best_epoch=1)
    assert ("Validation" in title(figure)) == held
    with pytest.raises(ValueError, match="there is no epoch to draw"):
        lv.report.training_curves([])


def test_the_regions_count_and_mark_what_is_wrong():
    split, network = planar()
    task = lv.train.trainable.task_of(network, split)
    wrong = int((task.labels(network(split.x_test)) != split.y_test).sum())
    figure = lv.report.decision_regions(network, split.x_test, split.y_test, task, split.label_names)
    right = len(split.y_test) - wrong
    assert title(figure).startswith(f"{right} of {len(split.y_test)} test points are on the right side (")
    assert wrong > 0 and wrong in [len(c.get_offsets()) for c in figure.axes[0].collections]
    with pytest.raises(ValueError, match="points of the plane"):
        lv.report.decision_regions(network, torch.zeros(3, 4), split.y_test, task)


def test_the_shading_is_the_probability():
    certain, even = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    blue = torch.tensor([0x00, 0x72, 0xB2]) / 255
    assert torch.allclose(style.blend(certain), 1 - float(style.strengths(2)[0]) * (1 - blue))
    assert style.blend(even).min() > 0.9
    assert (style.blend(torch.eye(10)) < 1).any(-1).all() and len(set(style.colours(10))) == 10


def test_the_first_axis_of_the_features_is_the_normal_of_the_head():
    split, network = planar()
    task = lv.train.trainable.task_of(network, split)
    features = network.features(split.x_test).detach().double()
    basis, plane = _basis(network, features, task)
    normal = network.head.weight[0].detach().double()
    assert torch.allclose(basis.T @ basis, torch.eye(2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(basis[:, 0], normal / normal.norm(), atol=1e-6)
    side = features @ basis[:, 0] >= plane
    assert torch.equal(side, network.head(features.float()).squeeze(-1) >= 0)


def test_the_panels_show_the_depths_and_the_title_what_the_head_gets_right_after_the_last():
    split, network = planar()
    task = lv.train.trainable.task_of(network, split)
    figure = lv.report.features_at_depths(network, split.x_test, split.y_test, task, panels=4)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [t.split(",")[0] for t in titles] == ["layer 0", "layer 2", "layer 4", "layer 6"]
    assert "%" not in "".join(titles)  # the head is for the last layer, and means nothing before it
    right = style.percent(task.score(network(split.x_test), split.y_test))
    assert title(figure) == f"After 6 layers the head gets {right} of the test points right"


@pytest.mark.parametrize("model", ["leapfrog", "midpoint", "verlet", "resnet"])
def test_features_of_every_kind_of_state(model):
    split = lv.data.load("double-moons", points=80)
    network = network_for(split, model=model)
    task = lv.train.trainable.task_of(network, split)
    assert len(lv.report.features_at_depths(network, split.x_test, split.y_test, task).axes) == 6


def test_the_sheet_shows_the_surest_mistakes_first():
    split = images()
    network = network_for(split, conv=lv.zoo.Images())
    network.eval()
    task = lv.train.trainable.task_of(network, split)
    p = task.probabilities(network(split.x_test)).detach()
    wrong = p.argmax(1) != split.y_test
    figure = lv.report.hardest_mistakes(network, split.x_test, split.y_test, task, "abc", columns=4, rows=2)
    assert title(figure).startswith(f"{int(wrong.sum())} of 30 test images are wrong (")
    shown = [float(axes.get_title().split("·")[1].rstrip("% ")) for axes in figure.axes if axes.get_title()]
    expected = (100 * p.amax(1)[wrong]).sort(descending=True).values[:8]
    assert shown == pytest.approx(expected.tolist(), abs=0.06) and len(shown) == 8


def test_a_network_without_mistakes_shows_what_it_is_least_sure_of(tmp_path):
    split = images()
    network = network_for(split, conv=lv.zoo.Images()).eval()
    task = lv.train.trainable.task_of(network, split)
    labels = task.labels(network(split.x_test))
    figure = lv.report.hardest_mistakes(network, split.x_test, labels, task)
    assert title(figure) == "All 30 test images are right; the 30 least certain ones"
    files = lv.report.draw_all(network, split, history_of(), tmp_path)
    assert [f.name for f in files] == ["training.png", "mistakes.png"]


def test_other_tables_get_the_curves_and_regressions_their_predictions(tmp_path):
    x, y = torch.randn(20, 3), torch.randn(20, 1)
    split = lv.data.Split(x, y, x, y, "line", 0)
    files = lv.report.draw_all(network_for(split), split, history_of(), tmp_path)
    assert [f.name for f in files] == ["training.png", "predictions.png"]
    split = lv.data.Split(x, torch.arange(20) % 2, x, torch.arange(20) % 2, "table", 2)
    assert len(lv.report.draw_all(network_for(split), split, history_of(), tmp_path)) == 1


def test_percentages_never_round_up_to_all_of_it():
    assert [style.percent(p) for p in (0, 1e-9, 0.5, 0.99999, 1)] == ["0 %", "0.01 %", "50.00 %", "99.99 %", "100 %"]


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'liouville\[report\]'"):
        lv.report.training_curves(history_of().records())


@pytest.mark.parametrize("width", [4.3, 7.0])
def test_a_long_heading_is_broken_into_lines_that_end_inside_the_figure(width, tmp_path):
    figure = style.canvas(width, 3.0)
    figure.subplots()
    style.heading(figure, "what is seen in this figure " * 5, "and how it was made in smaller print " * 5)
    lv.report.save(figure, tmp_path / "long.png")
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.height < figure.bbox.height / 2


def boxes(figure):
    """Of the legend, the title and every panel with its labels, in pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    return [legend.get_window_extent() for legend in figure.legends], figure._suptitle.get_window_extent(), panels


LONG = ("a name that goes on for much longer than any figure is wide, and then some", "short", "x" * 45)


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("draw", [lv.report.decision_regions, lv.report.features_at_depths])
def test_a_key_lies_inside_its_figure_and_over_nothing_whatever_the_names(draw, classes):
    names = [f"{LONG[k % 3]}{k}" for k in range(classes)]
    generator = torch.Generator().manual_seed(0)
    network = lv.classifier("h2", 2, classes, 4, 3, 1.0, generator=generator)
    x, y = torch.randn(60, 2, generator=generator), torch.arange(60) % classes
    figure = draw(network, x, y, None, names)
    (key,), heading, panels = boxes(figure)
    assert len(figure.legends[0].get_texts()) >= classes
    assert key.x0 >= 0 and key.y0 >= 0 and key.x1 <= figure.bbox.width
    assert not key.overlaps(heading) and not any(key.overlaps(panel) for panel in panels)
    assert all(panel.height > 50 for panel in panels)


def test_every_class_has_its_shape_in_every_cloud():
    figure = style.canvas(3.0, 3.0)
    axes = figure.subplots()
    y = torch.arange(12) % 4
    dots = style.cloud(axes, torch.rand(12, 2), y, 4, 9)
    paths = [tuple(map(tuple, path.vertices)) for path in dots.get_paths()]
    assert len(set(paths)) == 4 and all(
        (paths[i] == paths[k]) == bool(y[i] == y[k]) for i in range(12) for k in range(12)
    )


def test_a_network_looks_alike_in_every_figure_and_no_two_are_mixed_up():
    assert style.look_of("H2, 3x3") == style.look_of("h2") and style.look_of("tanh MLP") == style.look_of("MLP")
    assert style.look_of("ResNet with LayerNorm") != style.look_of("ResNet as a flow") == style.look_of("resnet")
    papers = [style.look_of(name).colour for name in lv.zoo.MODELS]
    assert len(set(papers)) == len(papers) and style.DARK not in papers
    curves = {name: torch.rand(5, 3) + 1 for name in ("resnet", "h2")}
    for shown in (curves, dict(reversed(curves.items()))):
        for axes, name in zip(lv.report.sensitivity_by_depth(shown).axes, shown, strict=True):
            assert axes.lines[0].get_color() == style.look_of(name).colour


def test_one_colour_is_one_depth_for_networks_of_different_depths():
    norms = {"h2": torch.rand(3, 65, 4) + 1, "tanh MLP": torch.rand(3, 33, 4)}
    figure = lv.report.sensitivity_by_iteration([0, 1, 2], norms)
    drawn = [
        {line.get_label(): line.get_color() for line in axes.lines if "=" in line.get_label()} for axes in figure.axes
    ]
    assert drawn[1].items() <= drawn[0].items() and "$l$ = 32" in drawn[1] and "$l$ = 64" in drawn[0]
    assert len(set(drawn[0].values())) == len(drawn[0]) == len(figure.legends[0].get_texts())


def test_predictions_are_in_the_unit_of_the_target(tmp_path):
    from liouville.report.figures import _by_data

    x, y = torch.randn(20, 3), torch.randn(20, 1)
    scaled = {"target_offset": torch.tensor([100.0]), "target_scale": torch.tensor([7.0])}
    split = lv.data.Split(x, y, x, y, "line", 0, target="rent", **scaled)
    axes = _by_data(network_for(split), split)["predictions"].axes[0]
    assert axes.get_xlabel() == "rent, in its own unit"
    shown = torch.tensor(axes.collections[0].get_offsets()[:, 0].tolist())
    assert torch.allclose(shown, 100 + 7 * y[:, 0], atol=1e-3)
    bare = lv.data.Split(x, y, x, y, "line", 0)
    assert _by_data(network_for(bare), bare)["predictions"].axes[0].get_xlabel() == "target, as the data have it"
