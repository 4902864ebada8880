"""The animation shows what the network does, in one window, and no basis vector flips."""

import pytest
import torch

import liouville as lv
from liouville.report import features_in_motion
from liouville.report.motion import _basis
from liouville.task import Task


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(0)
    return lv.classifier("h1", inputs=2, classes=2, features=4, layers=6, T=1.0, generator=generator)


def points():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(50, 2, generator=generator), torch.randint(2, (50,), generator=generator)


def test_points_lie_on_the_side_that_the_head_says_and_the_window_stays(network):
    x, y = points()
    moving = features_in_motion(network, x, y, Task("logistic", 2), points=50)
    moving._draw_was_started = True  # it is looked at here and not written
    axes = moving._fig.axes[0]
    window = axes.get_xlim(), axes.get_ylim()
    (plane,) = {line.get_xdata()[0] for line in axes.lines}
    moving._func(6)
    across = torch.tensor(axes.collections[0].get_offsets().tolist())[:, 0]
    some = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        score = network(x)[some, 0]
    clear = score.abs() > 1e-5  # float32
    assert ((across > plane) == (score >= 0))[clear].all() and clear.sum() > 40
    for j in range(7):
        moving._func(j)
        assert (axes.get_xlim(), axes.get_ylim()) == window
        shown = torch.tensor(axes.collections[0].get_offsets().tolist())
        assert window[0][0] < shown[:, 0].min() and shown[:, 0].max() < window[0][1]
        assert f"layer {j}," in moving._fig.get_suptitle()


def test_frames_are_at_most_as_many_as_asked_and_end_with_the_last_layer(network):
    x, y = points()
    moving = features_in_motion(network, x, y, Task("logistic", 2), frames=14)
    moving._draw_was_started = True
    frames = list(moving.new_frame_seq())
    assert len(frames) <= 14 and frames[0] == 0 and frames[-1] == 6


def test_the_basis_is_orthonormal_and_begins_with_the_normal():
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.arange(1.0, 6.0, dtype=torch.float64), dim=0)
    basis = _basis(features, normal)
    assert torch.equal(basis[:, 0], normal)
    assert (basis.mT @ basis - torch.eye(4, dtype=torch.float64)).abs().max() < 1e-12
    for column in basis[:, 1:].mT:  # a sign of its own, whichever the eigenvectors come with
        assert column[column.abs().argmax()] > 0


def test_more_classes_are_refused(network):
    x, y = points()
    with pytest.raises(ValueError, match="two classes, got 1 flows and 3 classes"):
        features_in_motion(network, x, y, Task("softmax", 3))
