"""The local radius: every run from a ball ends in the enclosure, no attack changes a class, strangers are refused."""

import functools
import math

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.activations import ACTIVATIONS
from liouville.analysis import certified_radius
from liouville.analysis.attack import attacked, classes_of
from liouville.analysis.local import local_radius
from liouville.analysis.local.box import Box
from liouville.analysis.local.chain import chain_of
from liouville.analysis.local.enclosure import enclosed, reference
from liouville.analysis.local.rounding import roundings
from liouville.analysis.local.secant import PAD, UNIT, at_zero, secant
from measure import generator, randn

MODELS = {
    "h2": lambda **k: lv.zoo.h2(4, 6, 1.5, **k),
    "h2-verlet": lambda **k: lv.Flow(lv.SeparableHamiltonianField(4, 5, hidden=3, **k), lv.Verlet(), 1.0),
    "h2-X": lambda **k: lv.Flow(
        lv.SeparableHamiltonianField(5, 4, X=randn(3, 2).float(), p_features=2, **k), lv.Yoshida4(), 1.0
    ),
    "ms1": lambda **k: lv.zoo.ms1(4, 6, 1.5, **k),
    "ms3": lambda **k: lv.zoo.ms3(4, 6, 1.5, **k),
    "h1": lambda **k: lv.zoo.h1(4, 6, 1.5, **k),
    "h1-full": lambda **k: lv.zoo.h1(3, 6, 1.0, J="full", **k),
    "resnet": lambda **k: lv.zoo.resnet(4, 6, 1.5, **k),
    "ms2": lambda **k: lv.zoo.ms2(4, 6, 1.5, gamma=0.2, **k),
    "shared-graph": lambda **k: lv.zoo.h2(4, 6, 1.0, operator=lv.Graph([(0, 1)]), shared=True, **k),
    "budget": lambda **k: lv.budgeted(lv.zoo.h2(4, 6, 2.0, **k), 3.0),
}


def network_of(model, activation="tanh", classes=2, size=0.8, inputs=2, lift="learned", seed=0):
    """A network of a model with normally distributed weights of a size, in float32."""
    g = generator(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = MODELS[model](activation=activation, init=lv.Normal(size), generator=g)
        n = flow.field.features
        first = nn.Linear(inputs, n) if lift == "learned" else lv.Lift(n, inputs)
        return lv.Network(first, flow, nn.Linear(n, 1 if classes == 2 else classes)).eval()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_secants_enclose_the_activation_and_are_not_much_wider(name):
    sigma, g = ACTIVATIONS[name], generator(1)
    u = 3 * torch.randn(2000, generator=g, dtype=torch.float64)
    middle = torch.randn(2000, generator=g, dtype=torch.float64)
    half = 10.0 ** (6 * torch.rand(2000, generator=g, dtype=torch.float64) - 5)
    v = u + middle
    slope, centre, claimed = secant(sigma, v, half, sigma.derivative(u))
    z = v + half * torch.linspace(-1, 1, 801, dtype=torch.float64)[:, None]
    e = sigma(z) - slope * z - centre
    pad = PAD * UNIT * (at_zero(sigma) + sigma.lipschitz * (v.abs() + half))
    assert bool((e.abs() <= claimed + pad).all())
    assert bool((claimed <= 0.51 * (e.amax(0) - e.amin(0)) + pad).all())


def test_the_shipped_activations_bend_where_the_enclosure_says():
    """Convex below 0 and concave above for sigmoids, convex everywhere for the others."""
    u = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    for name, sigma in ACTIVATIONS.items():
        second = sigma(u)[2:] - 2 * sigma(u)[1:-1] + sigma(u)[:-2]
        sign = torch.where(u[1:-1] > 1e-12, -1.0, 1.0) if name in ("tanh", "logistic") else torch.ones_like(second)
        assert bool((sign * second >= -1e-13).all()), name


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_fewer_columns_enclose_what_more_of_them_spanned(size):
    """Up to what float64 rounds here: the columns are float32 numbers, which lose ten million times as much."""
    g = generator(2)
    for rank in (1, 3, 4):
        columns = torch.randn(4, rank, generator=g, dtype=torch.float64) @ torch.randn(rank, 40, generator=g).double()
        box = Box(torch.zeros(4, 1, 1, dtype=torch.float64), 60)
        empty = box.image(torch.zeros(40, 4), slice(0, 4))
        box.move(slice(0, 4), (size * columns).float(), empty, torch.ones(40, 1))
        stored = box._columns[:, 1:41, 0].double()
        w = 2 * torch.rand(40, 500, generator=g, dtype=torch.float64) - 1
        points = stored @ torch.cat((w, w.sign()), 1)
        new = box._columns[:, 1 : box._enclosed(1, box._used), 0].double()
        inside = torch.linalg.solve(new, points)
        assert new.shape == (4, 4) and float(inside.abs().max()) <= 1 + 1e-10


def test_errors_are_gathered_in_columns_that_are_no_smaller():
    box = Box(torch.zeros(3, 1, 2, dtype=torch.float64), 6)
    errors = torch.tensor([[1e-9, 3.0], [0.1, 1e-40], [1 / 3, 7e-8]], dtype=torch.float64)
    box.errors(slice(0, 3)).add_(errors)
    box.gather()
    found = box._columns[:, 1 : box._used].double().diagonal(dim1=0, dim2=1).mT
    assert bool((found >= errors).all()) and bool((found <= errors * (1 + 1e-6) + 1e-29).all())
    assert not bool(box.errors(slice(0, 3)).any())


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        pytest.param(m, a, marks=[] if k % 4 == j else pytest.mark.slow)
        for k, m in enumerate(MODELS)
        for j, a in enumerate(ACTIVATIONS)
    ],
)
def test_every_run_from_a_ball_ends_within_the_bounds(model, activation):
    for seed, size, classes in ((0, 0.5, 3), (1, 2.0, 2)):
        network = network_of(model, activation, classes, size, lift="zeros" if seed else "learned", seed=seed)
        for dtype in (torch.float32, torch.float64):
            x, network = randn(6, 2).to(dtype), network.to(dtype)
            radius = torch.tensor([0.0, 1e-6, 1e-3, 0.05, 0.3, 2.0]).double()
            with torch.no_grad():
                run, own = reference(chain_of(network), x.double()), classes_of(network(x))
                low, high = enclosed(run, radius, own, most=1024).scores
                step = randn(40, 6, 2)
                step = radius[:, None] * step / step.norm(dim=-1, keepdim=True) * (1 - 1e-6)
                scores = network((x.double() + step).to(dtype).flatten(0, 1)).double().unflatten(0, (40, 6)).mT
                assert bool((low <= scores).all()) and bool((scores <= high).all()), (size, dtype)


@torch.no_grad()
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("build", [lv.zoo.h2, lv.zoo.ms1, lv.zoo.ms3, lv.zoo.h1, lv.zoo.ms2])
def test_a_step_rounds_no_more_than_is_said_and_not_a_thousandth_of_it(build, activation):
    """The first step from p = 0, so that next to nothing is rounded in the sum."""
    flow = build(4, 1, 0.5, activation=activation, init=lv.Normal(2.0), generator=generator(3))
    chain = chain_of(lv.Network(nn.Identity(), flow, nn.Linear(4, 1)).eval())
    step, y = chain.steps[0], randn(500, 4, seed=4).float()
    if step.to != step.of:
        y[:, step.to] = 0
    v, start, moved = step.velocity, y.double().mT, flow(y).double().mT[step.to]
    exact = start[step.to] + v.B @ chain.activation(v.R @ start[step.of] + v.b[:, None])
    bounds, inside = roundings(chain)[0], v.R_size @ start[step.of].abs() + v.b.abs()[:, None]
    claimed = bounds.per_inside @ inside + bounds.always + bounds.per_reach * exact.abs()
    share = (moved - exact).abs() / claimed
    assert 1e-3 < float(share.max()) <= 1
    assert float(((moved - exact).abs() / (claimed - bounds.per_reach * exact.abs())).max()) < 1 or step.to == step.of


@torch.no_grad()
def test_boxes_that_are_replaced_on_the_way_still_enclose(monkeypatch):
    network = network_of("h2", size=1.0).double()
    x, own = randn(20, 2), classes_of(network(randn(20, 2)))
    run, radius = reference(chain_of(network), x), torch.full((20,), 0.1, dtype=torch.float64)
    low, high = enclosed(run, radius, own, most=12).scores
    for k in range(40):
        step = randn(20, 2, seed=k)
        scores = network(x + 0.1 * step / step.norm(dim=1, keepdim=True)).mT
        assert bool(((low <= scores) & (scores <= high)).all())
    wide = certified_radius(network, x, "local")
    monkeypatch.setattr("liouville.analysis.local.radius._MOST", 12)
    assert 0.2 < float((certified_radius(network, x, "local") / wide).median()) <= 1.02


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[] if m in ("h2", "h1") else pytest.mark.slow) for m in MODELS]
)
def test_no_attack_within_the_local_radius_changes_a_class(model):
    for activation, classes, size in (("tanh", 2, 1.0), ("relu", 4, 0.6)):
        network, x = network_of(model, activation, classes, size), randn(24, 2, seed=3).float()
        radius = certified_radius(network, x, "local")
        assert bool((radius > 0).float().mean() > 0.9), activation
        assert attacked(network, x, radius).flips == 0
        wider = attacked(network, x, 30 * radius)  # and the attack is one: without a radius it changes many
        assert wider.flips > 0 and "changed a prediction: of input" in wider.note


def test_margins_of_a_few_roundings_are_not_certified_beyond_what_float32_can_tell():
    """Biases move each score to a few units in the last place: exact arithmetic has a radius there, the run none."""
    flips = 0
    for seed in range(8):
        network = network_of("h2", size=1.0, seed=seed)
        x = randn(1, 2, seed=seed).float()
        with torch.no_grad():
            network.head.bias -= network(x)[0] * (1 - 2.0**-20)
        radius = certified_radius(network, x, "local")
        flips += attacked(network, x, radius.clamp(min=0)).flips if float(radius) > 0 else 0
    assert flips == 0


class Equalised(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, 3 * self.weight, self.bias)


def _with(network, **parts):
    for name, part in parts.items():
        setattr(network, name, part)
    return network


def _strangers():
    """Networks that compute something else than their classes say, or what is not known, and a word of the refusal."""
    plain = network_of("h2")
    hooked = network_of("h2")
    hooked.head.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    replaced = network_of("h2")
    replaced.body.field.p_dot = lambda q, theta: 2 * q
    parametrised = network_of("h2")
    nn.utils.parametrizations.weight_norm(parametrised.head)
    own = lv.Activation("mine", torch.tanh, torch.log, torch.ones_like, 1.0, True)

    class Standardised(lv.Network):
        def forward(self, x):
            return super().forward(x / x.norm())

    class Kick(lv.SymplecticEuler):
        pass

    field = plain.body.field
    return {
        "subclass of Linear": (_with(network_of("h2"), head=Equalised(4, 1)).eval(), "Equalised"),
        "hook": (hooked, "hook"),
        "replaced method": (replaced, "replaced"),
        "parametrised": (parametrised, "ParametrizedLinear"),
        "subclass of Network": (Standardised(plain.lift, plain.body, plain.head).eval(), "Standardised"),
        "subclass of a scheme": (_with(network_of("h2"), body=lv.Flow(field, Kick(), 1.0)).eval(), "Kick"),
        "own activation": (network_of("h2", own), "activation|one of"),
        "head with a layer": (_with(network_of("h2"), head=nn.Sequential(nn.Tanh(), nn.Linear(4, 1))).eval(), "Tanh"),
        "16 bits": (network_of("h2").to(torch.bfloat16), "bfloat16"),
        "integer grid": (_with(network_of("h2"), body=plain.body.with_backprop(lv.Reversible(exact=True))), "exact"),
    }


@pytest.mark.parametrize("kind", _strangers())
def test_what_is_not_known_entirely_has_no_local_radius(kind):
    network, word = _strangers()[kind]
    with pytest.raises(NotImplementedError, match=word):
        certified_radius(network.eval(), randn(3, 2).to(next(network.parameters()).dtype), "local")


@pytest.mark.parametrize(
    "kind", ["subclass of Linear", "hook", "replaced method", "parametrised", "subclass of Network"]
)
def test_nor_a_global_one(kind):
    network, word = _strangers()[kind]
    with pytest.raises(NotImplementedError, match=word):
        certified_radius(network.eval(), randn(3, 2).float(), "global")
    if kind == "replaced method":  # the whole certificate is refused: a copy in float64 would not follow it
        with pytest.raises(NotImplementedError, match="replaced on the object"):
            lv.analysis.certify(network, randn(3, 2).float())
        return
    radius = [c for c in lv.analysis.certify(network, randn(3, 2).float()).claims if c.name == "robustness radius"]
    assert radius and all(c.status == "not applicable" for c in radius)


class Tripled(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        return 3 * out if func is nn.functional.linear else out


@pytest.mark.parametrize("method", ["local", "global"])
def test_what_was_replaced_beside_the_modules_is_seen(method, monkeypatch):
    def refused(network, word):
        with pytest.raises(NotImplementedError, match=word):
            certified_radius(network, randn(3, 2).float(), method)

    network = network_of("h2")
    network.head.weight = nn.Parameter(network.head.weight.detach().as_subclass(Tripled))
    refused(network, "head.weight is a Tripled")
    own = lv.Activation("tanh", torch.sin, torch.cos, torch.cos, 0.01, True)
    refused(network_of("h2", own), "is known for")
    network = network_of("h2")
    object.__setattr__(network.body.scheme, "step", lambda *args: args[1])
    refused(network, "step of SymplecticEuler.*replaced on the object")
    with monkeypatch.context() as patch:
        patch.setattr(nn.Linear, "forward", lambda self, x: x @ self.weight.mT)
        refused(network_of("h2"), "forward was replaced on the class of Linear")
    backend = torch.backends.mkldnn.matmul
    was = backend.fp32_precision
    try:
        backend.fp32_precision = "bf16"
        refused(network_of("h2"), "set_float32_matmul_precision")
    finally:
        backend.fp32_precision = was
    for head in (nn.Sequential(), nn.Sequential(nn.Flatten(0), nn.Linear(12, 2))):
        refused(_with(network_of("h2"), head=head), "linear|Flatten")


@torch.no_grad()
def test_a_flow_that_runs_twice_is_enclosed_twice():
    network = network_of("h2")
    twice = _with(network_of("h2"), body=nn.Sequential(network.body, nn.Identity(), network.body))
    assert len(chain_of(twice).steps) == 2 * len(chain_of(network).steps)


def test_steps_wider_than_the_box_fit_in(monkeypatch):
    monkeypatch.setattr("liouville.analysis.local.radius._MOST", 4)
    network = network_of("h2")
    network.body = lv.Flow(lv.SeparableHamiltonianField(4, 2, hidden=9), lv.SymplecticEuler(), 1.0)
    assert bool((certified_radius(network, randn(2, 2).float(), "local") > 0).all())


@torch.no_grad()
def test_no_run_within_a_radius_leaves_the_range_of_its_numbers():
    """Scores just below the largest float32: both overflow within what exact arithmetic would certify."""
    network = network_of("h2", "relu", classes=3, inputs=1)
    for name, w in network.named_parameters():
        w.zero_() if "b" in name.rsplit(".")[-1] else w.mul_(0.1)
    network.lift.weight.fill_(1.0)
    network.head = nn.Linear(4, 2, bias=False)
    network.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [1.05, 0, 0, 0]]) * 1e38)
    x = 2.9e38 / network(torch.ones(1, 1))[:, 1:]
    assert not bool(network(1.3 * x).isfinite().any())
    assert float(certified_radius(network, x, "local")) == 0
    assert float(certified_radius(network, 0.01 * x, "local")) > 0
    with pytest.raises(ValueError, match="a score is not a finite number"):
        certified_radius(network, 1.3 * x, "local")


@torch.no_grad()
@pytest.mark.parametrize("size", [1e-38, 1e-41, 1e-44])
def test_scores_among_the_smallest_numbers_have_no_radius_that_rounding_breaks(size):
    network, x = network_of("h2", classes=3), randn(6, 2, seed=5).float()
    network.head.weight.mul_(size), network.head.bias.zero_()
    assert attacked(network, x, certified_radius(network, x, "local")).flips == 0


def test_an_enclosure_that_overflows_only_costs_the_radius():
    network = network_of("h2")
    network.body = lv.zoo.h2(4, 30, 4.0, init=lv.Normal(1e4))
    assert bool((certified_radius(network, randn(2, 2).float(), "local") >= 0).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", [None, "local", "global"])
def test_weights_that_are_not_finite_have_no_radius(method, value):
    for part in ("head.weight", "head.bias", "lift.weight"):
        network = network_of("h2", classes=3)
        network.get_parameter(part).data.flatten()[0] = value
        with pytest.raises(ValueError, match="not finite"):
            certified_radius(network, randn(3, 2).float(), method)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["zero head", "equal rows", "on the boundary", "beside it"])
def test_inputs_whose_class_is_not_certain_have_the_radius_0(kind, classes):
    flow = lv.zoo.h2(4, 16, 8.0, init=lv.Normal(3.0), generator=generator(0))
    network = lv.Network(lv.Lift(4, 2), flow, nn.Linear(4, 1 if classes == 2 else classes)).eval()
    x = randn(3, 2).float()
    with torch.no_grad():
        if kind in ("zero head", "equal rows"):
            network.head.weight *= 0 if kind == "zero head" or classes == 2 else 1
            network.head.weight[1:] = network.head.weight[0].clone()
            network.head.bias.zero_()
        if kind in ("on the boundary", "beside it"):
            network.head.weight[1:] = -network.head.weight[:1]
            scores = network(x)
            network.head.bias[0] -= scores[0, 0] if classes == 2 else scores[0, 0] - scores[0, 1:].amax()
            network.head.bias[0] += 1e-9 * (kind == "beside it")
    assert local_radius(network, x)[0] == 0


def test_the_radius_is_that_of_evaluation_mode_and_the_mode_is_left_alone():
    network = lv.classifier("h2", 2, 2, 4, 6, 1.0)
    network.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
    x = randn(8, 2).float()
    in_training = certified_radius(network.train(), x)
    assert all(m.training for m in network.modules())
    assert torch.equal(in_training, certified_radius(network.eval(), x))


def test_a_network_that_is_not_its_formulas_is_found_out():
    """What no look at types can see shows in the numbers."""
    network = network_of("h2").double().with_backprop(lv.Stored())  # the kernel never calls the method
    original = lv.SeparableHamiltonianField.p_dot
    try:
        lv.SeparableHamiltonianField.p_dot = functools.wraps(original)(lambda *args: 1.001 * original(*args))
        with pytest.raises(ArithmeticError, match="do not follow from its weights"):
            local_radius(network, randn(4, 2))
    finally:
        lv.SeparableHamiltonianField.p_dot = original


def test_wrong_inputs_are_named():
    network = network_of("h2")
    with pytest.raises(ValueError, match=r"shape \(samples, 2\)"):
        certified_radius(network, randn(3, 5).float(), "local")
    with pytest.raises(ValueError, match="not finite"):
        certified_radius(network, torch.full((1, 2), math.nan), "local")
    with pytest.raises(ValueError, match="method must be"):
        certified_radius(network, randn(3, 2).float(), "exact")
    for dtype in (torch.float64, torch.int64, torch.complex64, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match="one floating-point dtype"):
            certified_radius(network, torch.ones(3, 2).to(dtype))
    with pytest.raises(TypeError, match=r"expected a torch\.Tensor"):
        certified_radius(network, [[1.0, 2.0]])
    assert certified_radius(network, torch.zeros(0, 2)).shape == (0,)
    scores = torch.tensor([[0.0], [-0.1]])
    assert classes_of(scores).tolist() == [1, 0]


@pytest.mark.parametrize("model", ["h2", "h2-X", "ms1", "h1", "ms2"])
def test_every_tensor_is_made_on_the_device_of_the_network(model):
    """What is made without a device would be on the default one, here one that has no numbers."""
    for lift in ("learned", "zeros"):
        network = network_of(model, classes=3, lift=lift)
        x = randn(3, 2).float()
        expected = certified_radius(network, x, "local")
        with torch.device("meta"):
            radius = certified_radius(network, x, "local")
            assert attacked(network, x, radius).flips == 0
        assert torch.equal(radius, expected) and radius.device == x.device
