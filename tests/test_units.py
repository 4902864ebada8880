"""Time is a unit: networks of any final time are one network, and train as one, bit for bit."""

import copy
import dataclasses
import math

import pytest
import torch

import liouville as lv
import samples
from liouville.activations import ACTIVATIONS
from liouville.analysis import margin
from liouville.fields.base import Degrees, degrees_of
from liouville.fields.initial import Initial
from liouville.runs.cautions import cautions
from liouville.testing import check_degrees
from liouville.train import Penalty, Settings, fit, optimizer_of
from liouville.train.rates import MOST, measured
from liouville.train.trainable import task_of
from liouville.units import units_of
from liouville.zoo import MODELS, Images, scaled_start
from measure import generator, randn
from turns import one_in

TIMES = (1.0, 16.0, 64.0)  # beside 4: the factors of all matrices are then powers of 2
STATED = [(s, f) for s, f in samples.PAIRS if degrees_of(samples.field(f)) is not None]


def network(model="h2", T=4.0, layers=32, seed=0, features=4, **more):
    return lv.classifier(model, 2, 2, features, layers, T, generator=generator(seed), **more)


@pytest.mark.parametrize(("scheme", "name"), one_in(4, STATED))
def test_time_is_a_unit_of_every_field_and_scheme(scheme, name):
    check_degrees(samples.flow(scheme, name), samples.inputs(samples.field(name)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_time_is_a_unit_for_every_activation(activation):
    for build in (lv.zoo.h2, lv.zoo.antisymmetric, lv.zoo.leapfrog):
        check_degrees(build(4, 3, 1.0, activation=activation, init=lv.Normal(0.7), generator=generator(2)))


def test_every_field_of_one_linear_map_states_its_degrees_but_for_diffusion_and_modules():
    silent = {name for name in samples.FIELDS if degrees_of(samples.field(name)) is None}
    in_other_units = {f"port-hamiltonian-{part}" for part in ("quadratic", "inputs", "lossless")}  # beside K
    assert silent == in_other_units | {"antisymmetric-gated", "antisymmetric-images"} | {
        n for n in samples.FIELDS if "shear" in n or "gamma" in n
    }


@pytest.mark.parametrize("wrong", [Degrees(("K_p", "K_q"), 1), Degrees(("K_p", "K_q"), 2, 2), Degrees(("K_p",), 2)])
def test_wrong_degrees_are_noticed(wrong):
    class Mine(lv.SeparableHamiltonianField):
        degrees = wrong

    with pytest.raises(AssertionError, match="one network in all units"):
        check_degrees(lv.Flow(Mine(4, 3, init=lv.Normal()), lv.Verlet(), 1.0))


def test_what_a_subclass_computes_has_no_degrees_that_it_does_not_state():
    class Mine(lv.ResidualField):
        def forward(self, y, theta_j):
            return super().forward(y, theta_j) - y

    with pytest.raises(ValueError, match="states no degrees"):
        check_degrees(lv.Flow(Mine(4, 3), lv.ForwardEuler(), 1.0))


@pytest.mark.parametrize("model", MODELS)
def test_a_network_of_every_final_time_is_one_network(model):
    x = randn(5, 2).float()
    expected = network(model)(x)
    assert all(torch.equal(network(model, T)(x), expected) for T in TIMES)


def test_so_is_one_of_several_flows_on_images_and_one_with_a_learned_lift_and_dropout():
    x, lifted = randn(2, 1, 8, 8).float(), randn(5, 2).float()

    def images(T):
        made = lv.classifier("h2", (1, 8, 8), 3, (4, 6), (2, 3), T, conv=Images(), generator=generator(0))
        return made.eval()(x)

    for T in TIMES:
        assert torch.equal(images(T), images(4.0))
        one, other = (network("ms2", t, lift="linear", dropout_rate=0.1).eval()(lifted) for t in (T, 4.0))
        assert torch.equal(one, other)


@pytest.mark.parametrize("model", ["h2", "antisymmetric", "leapfrog"])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(lr=0.03, penalty=Penalty(smoothness=1e-3, decay=1e-2, head_decay=1e-2, l1=1e-3, variation=1e-3)),
        Settings(lr=0.03, optimizer="adamw", weight_decay=0.1, max_grad_norm=0.01, ema_decay=0.9),
        Settings(lr=0.01, optimizer="sgd", head_lr=0.1, penalty=Penalty(decay=1e-2, scaling="sum")),
        Settings(lr=0.5, rates="share", penalty=Penalty(smoothness=1e-3, scaling="hdnn")),
        Settings(lr=0.03, alternate=2, penalty=Penalty(head_decay=1e-2)),
    ],
    ids=["adam", "adamw", "sgd", "share", "alternation"],
)
def test_networks_of_every_final_time_train_as_one(model, settings):
    """float64, where no epsilon and no rounding of a scaled number tells them apart."""
    split = lv.data.load("double-moons", points=120, dtype=torch.float64)
    settings = dataclasses.replace(settings, epochs=2, batch_size=20)
    found = []
    for T in (4.0, 64.0):
        trained = network(model, T, layers=12, lift="linear").double()
        history = fit(trained, split, settings)
        units = units_of(trained)
        weights = [p / units.get(p, 1.0) for p in trained.parameters()]
        found.append((weights, [(e.loss, e.penalty, e.gradient_norm, e.lr) for e in history.epochs]))
    (mine, told), (theirs, said) = found
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert torch.tensor(told).allclose(torch.tensor(said), rtol=1e-9)


def test_plain_rates_tell_final_times_apart_and_are_those_of_the_weights():
    plain = network("verlet", 64.0)
    groups = optimizer_of(plain, Settings(lr=0.03, rates="plain")).param_groups
    assert {group["lr"] for group in groups} == {0.03}
    scaled = optimizer_of(plain, Settings(lr=0.03)).param_groups
    assert 0.03 * plain.body.field.weight_unit in {group["lr"] for group in scaled}


def test_a_start_is_omega_or_what_the_scheme_carries():
    for model, layers, expected in (
        ("h2", 64, 20.0),
        ("h2", 8, 9.6),
        ("antisymmetric", 16, lv.ForwardEuler().carried(16)),
    ):
        flow = network(model, layers=layers, T=7.0).body
        assert float(flow.T * flow.field.rate(flow.field.theta()).mean().detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scheme", samples.SCHEMES)
def test_no_scheme_carries_more_than_its_stability_limit_allows(scheme):
    scheme = samples.SCHEMES[scheme]
    for layers in (1, 7, 100):
        h = scheme.carried(layers) / layers
        assert 0 < h <= 1.2 and not h > 0.61 * scheme.stability_limit > 0
        assert scheme.carried(2 * layers) > scheme.carried(layers)


def test_weights_stay_as_drawn_where_no_action_is_asked_for():
    class Own(Initial):
        def weight(self, layers, shape, mean, generator):
            return torch.full((layers, *shape), 0.3)

        def bias(self, layers, shape, generator):
            return torch.zeros(layers, *shape)

    for init in (lv.Smooth(action=None), lv.Normal(0.5), Own()):
        made = lv.classifier(lambda *a, init=init, **k: lv.zoo.h2(*a, init=init, **k), 2, 2, 4, 8, 64.0)
        assert not units_of(made) and made.body.field.weight_unit == 1.0 and made.lift.scale == 1.0
    assert torch.equal(made.body.field.K_p, torch.full((8, 2, 2), 0.3))
    drawn = lv.Smooth().weight(8, (2, 2), torch.eye(2), generator(1))
    assert torch.equal(lv.SeparableHamiltonianField(4, 8, generator=generator(1)).K_p, drawn)


def test_a_flow_of_ones_own_is_scaled_on_request_and_a_field_without_degrees_is_left():
    flow = lv.zoo.ms1(4, 16, T=50.0, generator=generator(0))
    s = scaled_start(flow)
    assert s == flow.field.weight_unit == pytest.approx(1 / flow.field.state_unit)
    damped = lv.zoo.ms2(4, 16, T=50.0, gamma=0.1)
    before = damped.field.W.clone()
    assert scaled_start(damped) == 1.0 and torch.equal(damped.field.W, before)


def test_a_share_is_how_far_the_first_step_moves_the_features():
    split = lv.data.load("double-moons", points=200)
    trained = network("h2", T=16.0)
    x, y, task = split.x_train, split.y_train, task_of(trained, split)
    lr = measured(trained, x, y, task, Settings(lr=1e-3, rates="share"))
    optimizer = optimizer_of(trained, Settings(lr=1e-3, rates="share"), (x, y, task))
    trained.eval()
    before = trained.features(x).detach()
    task.loss(trained(x), y).backward()
    optimizer.step()
    assert float((trained.features(x) - before).norm() / before.norm()) == pytest.approx(1e-3, rel=0.1)
    assert 0 < lr < MOST and measured(trained, x, y, task, Settings(lr=1e9, rates="share")) == MOST


def test_levels_share_the_rate_of_the_first():
    settings = Settings(epochs=2, lr=0.5, rates="share", schedule="constant")
    split = lv.data.load("double-moons", points=200)
    history = lv.train.multilevel(network("h2", layers=8), split, settings, levels=2)
    rates = {epoch.lr for epoch in history.epochs}
    assert len(history.levels) == 2 and len(rates) == 1 and 0 < rates.pop() <= MOST


def test_a_share_needs_data_features_and_adam():
    with pytest.raises(ValueError, match="give optimizer_of data"):
        optimizer_of(network(), Settings(rates="share"))
    with pytest.raises(ValueError, match="a liouville Network"):
        fit(torch.nn.Linear(2, 1), lv.data.load("double-moons", points=60), Settings(rates="share"))
    with pytest.raises(ValueError, match="a step of Adam"):
        Settings(rates="share", optimizer="sgd")
    with pytest.raises(ValueError, match="give head_lr"):
        Settings(rates="share", alternate=3)


def test_units_are_saved_and_doubled_with_the_weights(tmp_path):
    made = network("verlet", 64.0)
    again = lv.load(lv.save(made, tmp_path / "model.safetensors"))
    assert again.body.field.weight_unit == made.body.field.weight_unit != 1.0
    assert sorted(units_of(again).values()) == sorted(units_of(made).values())
    x = randn(3, 2).float()
    assert torch.equal(again(x), made(x)) and again.lift.scale == made.lift.scale
    assert made.body.refined().field.weight_unit == made.body.field.weight_unit


@pytest.mark.parametrize("name", ["smoothness", "decay", "l1", "variation"])
def test_penalties_in_units_know_neither_the_number_of_layers_nor_the_final_time(name):
    penalty = Penalty(**{name: 1.0}).in_units()
    coarse, fine = (penalty(network("h2", T=30.0, layers=N)).detach() for N in (256, 512))
    assert abs(float(fine / coarse) - 1) < 0.01
    assert float(penalty(network("h2", T=4.0, layers=256))) == pytest.approx(float(coarse), rel=1e-5)


def test_a_scaled_lift_counts_in_bounds_and_radii():
    made = network("ms1", 64.0).double().eval()
    x = randn(4, 2)
    radius = lv.analysis.certified_radius(made, x)
    linear = copy.deepcopy(made)
    linear.lift = torch.nn.Linear(2, 4, bias=False).double()
    linear.lift.weight.data = made.lift(torch.eye(2).double()).mT.contiguous()
    assert torch.allclose(radius, lv.analysis.certified_radius(linear, x), rtol=1e-6)
    wide, plain = (lv.analysis.robustness.lipschitz_bound(lv.Lift(4, 2, scale=s)) for s in (3.0, 1.0))
    assert (wide, plain) == (3.0, 1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        lv.Lift(4, scale=0.0)


def test_what_cannot_work_is_said_and_what_works_is_not():
    assert not any(cautions(network(m, T=T, layers=64)) for m in ("h2", "ms2", "midpoint") for T in (1.0, 64.0))
    assert "take 64 layers or more" in cautions(network("h1", layers=16))[0]
    assert "too little for planar data" in cautions(network("h2", layers=4))[0]
    for model in ("verlet", "ms1"):
        assert "2 inputs fill the half of the 4 features" in cautions(network(model, layers=16))[0]
        assert not cautions(network(model, layers=16, features=8)) and not cautions(network(model, layers=64))
    drawn = lv.classifier(lambda *a, **k: lv.zoo.h2(*a, init=lv.Normal(), **k), 2, 2, 4, 16, 64.0)
    (said,) = cautions(drawn)
    assert "steps are too long" in said and float(margin(drawn.body).max()) > 2 and not math.isnan(drawn.body.T)
