"""Lift, connectors, halves and the networks around the papers' flows."""

import functools
import pickle

import numpy
import pytest
import torch
from torch import nn

import liouville as lv
import samples
from liouville.network import ChannelsLast, Half
from measure import generator, near, randn, rounding

X = torch.tensor([[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    "part", [lv.Lift(4), lv.Connector(4, 6), Half("q"), ChannelsLast()], ids=lambda p: type(p).__name__
)
def test_pickles_of_the_one_file_that_these_classes_were_in_are_read(part):
    home = type(part).__module__.encode()
    before = pickle.dumps(part, protocol=2).replace(home, b"liouville.network")
    assert home not in before
    assert repr(pickle.loads(before)) == repr(part)


@pytest.mark.parametrize(
    "place, features, expected",
    [
        ("front", 6, [1, 2, 3, 0, 0, 0]),
        ("p", 6, [1, 2, 3, 0, 0, 0]),
        ("ends", 6, [1, 2, 0, 0, 0, 3]),
        ("q", 6, [0, 0, 0, 1, 2, 3]),
        ("q", 8, [0, 0, 0, 0, 1, 2, 3, 0]),
        ("q", 5, [0, 0, 1, 2, 3]),
        ("front", 3, [1, 2, 3]),
        ("ends", 3, [1, 2, 3]),
    ],
)
def test_lift_places(place, features, expected):
    assert lv.Lift(features, 3, place=place)(X).tolist() == [expected]
    images = lv.Lift(features, place=place, axis=-3)(X.reshape(1, 3, 1, 1).expand(2, 3, 4, 5))
    assert images.shape == (2, features, 4, 5)
    assert images[0, :, 2, 3].tolist() == expected


def test_lift_has_no_weights_and_passes_gradients_dtypes_and_extra_axes():
    lift = lv.Lift(4)
    assert not list(lift.parameters())
    x = randn(2, 3, 2).requires_grad_()
    y = lift(x)
    assert (y.shape, y.dtype) == ((2, 3, 4), torch.float64)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(torch.func.vmap(lift)(x.detach()), y)


def test_lift_pads_with_zeros_whatever_it_pads():
    assert lv.Lift(4)(torch.tensor([float("inf"), float("nan")]))[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lv.Lift(4, place="middle"), "'front', 'ends', 'p', 'q', got 'middle'"),
        (lambda: lv.Lift(4, 5), "5 inputs do not fit into 4 features"),
        (lambda: lv.Lift(4, 3, place="q"), "3 inputs do not fit into 2 features"),
        (lambda: lv.Lift(4, 0), "0 inputs do not fit"),
        (lambda: lv.Lift(4, 2)(X), r"expected 2 inputs on axis -1, got 3 \(shape \(1, 3\)\)"),
        (lambda: lv.Lift(2)(X), "width 3 does not fit into 2 features"),
        (lambda: lv.Connector(4, 6, pool=2), r"no resolution to pool \(pool=2\)"),
        (lambda: lv.Connector(6, 4, learned=False), "got 6 -> 4; use learned=True"),
        (lambda: lv.Connector(4, 7, learned=False), "got 4 -> 7"),
        (lambda: Half("y"), '"p" or "q", got \'y\''),
    ],
)
def test_errors_of_parts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_connector_pads_each_half_and_pools():
    y = torch.arange(1.0, 5.0).reshape(1, 4)
    assert lv.Connector(4, 8, learned=False)(y).tolist() == [[1, 2, 0, 0, 3, 4, 0, 0]]
    images = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 2, 4, 4)
    pooled = lv.Connector(2, 4, pool=2, learned=False, dims=2)(images)
    assert pooled[0, :, 0, 0].tolist() == [2.5, 0, 2.5, 0]  # the mean of 0, 1, 4, 5
    assert torch.equal(lv.Connector(4, 4, learned=False)(y), y)


def test_a_learned_connector_is_one_affine_map_per_position():
    connector = lv.Connector(3, 5, dims=2).double()
    y = randn(2, 3, 4, 4)
    W, b = connector.map.weight[:, :, 0, 0], connector.map.bias
    near(connector(y), (y.movedim(1, -1) @ W.mT + b).movedim(-1, 1), rounding(terms=4))


def test_half():
    y = torch.arange(8.0).reshape(2, 4)
    assert torch.equal(Half("p")(y), y[:, :2])
    assert torch.equal(Half("q")(y), y[:, 2:])
    assert torch.equal(Half("q", axis=0)(y), y[1:])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_channels_last_changes_only_the_layout_and_what_follows_keeps_it(channels, batch):
    """Of one channel, too, where only strides tell the layouts apart; of images that lie in any layout before."""
    images = torch.randn(batch, 5, 4, channels, dtype=torch.float64)
    for x in (images.permute(0, 3, 1, 2), images.permute(0, 3, 1, 2).contiguous(), images.permute(0, 3, 2, 1)):
        x = x.detach().requires_grad_()
        out = ChannelsLast()(x)
        assert torch.equal(out, x)
        follows = nn.Conv2d(channels, 8, 3, dtype=torch.float64)(out)
        assert not batch or out.stride(1) == follows.stride(1) == 1
        (gradient,) = torch.autograd.grad((out * out).sum(), x)
        assert torch.equal(gradient, 2 * x)
        assert torch.equal(torch.func.vmap(ChannelsLast())(x[None]), x[None])


def test_images_lie_with_channels_last_from_the_lift_on():
    net = lv.classifier("h2", (1, 8, 8), 3, (4, 6), 2, 1.0, conv=lv.zoo.Images())
    x = torch.randn(2, 1, 8, 8)
    for layer in net.lift:
        x = layer(x)
        assert x.stride(1) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_a_network_on_images_lie_as_its_weights_do(channels):
    """Else processes that share a batch warn of each."""
    net = lv.classifier("h2", (channels, 8, 8), 3, (4, 6), 2, 1.0, conv=lv.zoo.Images())
    net(torch.randn(2, channels, 8, 8)).sum().backward()
    assert all(p.grad.stride() == p.stride() for p in net.parameters() if p.grad is not None)


def test_network_is_head_of_body_of_lift():
    net, x = samples.PARTS["network"]()
    assert torch.equal(net.features(x), net.body(net.lift(x)))
    assert torch.equal(net(x), net.head(net.features(x)))
    assert [f.layers for f in net.flows()] == [2, 2]
    single = lv.Network(lv.Lift(4), lv.zoo.h2(4, layers=8, T=1.0), nn.Linear(4, 1))
    assert [f.layers for f in single.flows()] == [8]


# ---- classifier and regressor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", lv.zoo.MODELS)
def test_every_model_classifies_and_regresses_vectors(model):
    net = lv.classifier(model, inputs=2, classes=3, features=4, layers=3, T=0.6)
    assert net(torch.randn(5, 2)).shape == (5, 3)
    assert lv.classifier(model, 2, 2, 4, 3, 0.6)(torch.randn(5, 2)).shape == (5, 1)
    assert lv.regressor(model, 2, 2, 4, 3, 0.6)(torch.randn(5, 2)).shape == (5, 2)
    net(torch.randn(5, 2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("model", [m for m in lv.zoo.MODELS if m != "verlet"])
def test_every_model_classifies_images(model):
    conv = lv.zoo.Images(kernel=3, pool=2)
    net = lv.classifier(model, (1, 8, 8), 10, [4, 6], [2, 1], 0.4, conv=conv)
    assert net(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert [(f.field.features, f.layers) for f in net.flows()] == [(4, 2), (6, 1)]


def test_verlet_reads_q_and_starts_there():
    net = lv.classifier("verlet", 2, 2, 4, 3, 0.6)
    x = torch.randn(5, 2)
    assert torch.equal(net.lift(x), torch.cat((torch.zeros(5, 2), net.body.field.state_unit * x), 1))
    assert net.head[1].in_features == 2
    assert torch.equal(net.head[0](net.features(x)), net.features(x)[:, 2:])


def test_default_lift_reaches_both_halves():
    assert lv.classifier("h2", 2, 2, 4, 3, 1.0).lift.place == "ends"
    assert lv.classifier("ms1", 2, 2, 4, 3, 1.0).lift.place == "q"
    assert lv.classifier("h2", 2, 2, 4, 3, 1.0, lift="front").lift.place == "front"
    assert isinstance(lv.classifier("h2", 2, 2, 4, 3, 1.0, lift="linear").lift, nn.Linear)


def test_a_generator_fixes_every_weight_and_leaves_the_global_stream_alone():
    def weights(seed):
        net = lv.classifier("h2", 2, 2, 4, 3, 1.0, lift="linear", generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in net.parameters()])

    before = torch.get_rng_state()
    a, b, c = weights(0), weights(0), weights(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_options_reach_the_flows():
    net = lv.classifier(
        functools.partial(lv.zoo.h1, J="full"), 2, 2, 3, 4, 1.0, dropout_rate=0.2, backprop=lv.Checkpointed()
    )
    (flow,) = net.flows()
    assert flow.backprop == lv.Checkpointed()
    assert flow.field.probability == 0.2
    assert flow.field.field.J_name == "full"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: lv.classifier("H2", 2, 2, 4, 3, 1.0), "unknown model 'H2'; did you mean 'h2'"),
        (lambda: lv.classifier("h2", 2, 1, 4, 3, 1.0), "classes must be at least 2, got 1; use regressor"),
        (lambda: lv.classifier("h2", 2, 2, 5, 3, 1.0), "features must be even"),
        (lambda: lv.classifier("h2", 7, 2, 4, 3, 1.0), "7 inputs do not fit into 4 features"),
        (lambda: lv.classifier("h2", 2, 2, [4, 6], 3, 1.0), "several flows need images"),
        (lambda: lv.classifier("h2", 2, 2, [4, 6], [3], 1.0), "equally many flows, got 2 and 1"),
        (lambda: lv.classifier("h2", (1, 8, 8), 2, 4, 3, 1.0), "do not fit"),
        (lambda: lv.classifier("h2", 2, 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (128,), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (1, 0), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (1, 2.5), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (1, 4, 4, 4, 4), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "do not fit"),
        (lambda: lv.classifier("h2", (1, 1), 2, 4, 3, 1.0, conv=lv.zoo.Images()), "pooled away"),
        (
            lambda: lv.classifier("h2", (1, 1, 1), 2, 4, 3, 1.0, conv=lv.zoo.Images()),
            "images of 1 x 1 pixels are pooled away",
        ),
    ],
)
def test_errors_of_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_verlet_refuses_what_would_fill_its_auxiliary_half():
    with pytest.raises(ValueError, match="use lift='q' or ms1"):
        lv.classifier("verlet", 2, 2, 4, 3, 0.6, lift="linear")
    with pytest.raises(ValueError, match="use ms1 for images"):
        lv.classifier("verlet", (1, 8, 8), 3, 4, 3, 0.6, conv=lv.zoo.Images())


def test_lift_puts_each_input_where_it_is_told():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert lv.Lift(4, place=(3, 0))(x).tolist() == [[2.0, 0.0, 0.0, 1.0], [4.0, 0.0, 0.0, 3.0]]
    image = torch.ones(1, 1, 2, 2)
    assert torch.equal(lv.Lift(3, place=(1,), axis=-3)(image)[:, 1], image[:, 0])
    for place, inputs, message in (((0, 0), None, "different"), ((0, 4), None, "from 0 to 3"), ((0, 1), 3, "3 inputs")):
        with pytest.raises(ValueError, match=message):
            lv.Lift(4, inputs, place=place)
    with pytest.raises(ValueError, match="expected 2 inputs"):
        lv.Lift(4, place=(0, 1))(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: lv.zoo.h2(4, layers=2.5, T=1.0), ValueError, "layers must be a whole number of at least 1, got 2.5"),
        (lambda: lv.zoo.h2(4, layers="8", T=1.0), ValueError, "layers must be a whole number of at least 1, got '8'"),
        (lambda: lv.classifier("h2", 2, 2, 4, layers=2.5, T=1.0), ValueError, "layers must be a whole number"),
        (lambda: lv.zoo.h2(4.0, layers=2, T=1.0), ValueError, "features must be a whole number of at least 1, got 4.0"),
        (
            lambda: lv.zoo.h2(4, layers=2, T="4"),
            ValueError,
            "T must be a positive, finite time of at most 3.4e\\+38, got '4'",
        ),
        (lambda: lv.zoo.h2(4, 2, 1.0)(numpy.zeros((3, 4))), TypeError, "expected a torch.Tensor, got ndarray"),
        (lambda: lv.classifier("h2", 2, 2, 4, 2, 1.0)([[1.0, 2.0]]), TypeError, "expected a torch.Tensor, got list"),
    ],
)
def test_what_is_no_number_and_no_tensor_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert lv.zoo.h2(numpy.int64(4), layers=numpy.int64(3), T=numpy.float32(1.0)).layers == 3


@pytest.mark.parametrize("size", [(12,), (8, 6), (6, 5, 4)], ids=["signals", "images", "volumes"])
def test_pixels_along_one_two_or_three_axes(size, tmp_path):
    """Two flows and a connector, trained for a step, saved, loaded and bounded."""
    conv, g = lv.zoo.Images(pool=1, connector_pool=2, head_pool=2, connector=1), generator(3)
    network = lv.classifier("h2", (2, *size), 3, (4, 6), 3, 1.0, conv=conv, generator=g, backprop=lv.Auto())
    x = torch.randn(5, 2, *size, generator=g)
    network(x).logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    lv.save(network, tmp_path / "model.safetensors")
    assert torch.equal(lv.load(tmp_path / "model.safetensors").eval()(x), network.eval()(x))
    assert lv.analysis.certified_radius(network, x).shape == (5,)
    assert lv.regressor("leapfrog", (2, *size), 1, 4, 2, 1.0, conv=lv.zoo.Images())(x).shape == (5, 1)
