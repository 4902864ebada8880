"""Compiled, traced, exported: the same numbers, on other inputs and other batch sizes."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import liouville as lv
import samples
from liouville.zoo.networks import Images
from measure import EPS, near, rounding

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "sweeps"))
from recorders import ANY_BATCH, COMPILERS, RECORDERS, quiet

PAPERS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")
ENGINES = {
    **samples.BACKPROPS,
    "fused": lv.Fused(),
    "fused-exact": lv.Fused(exact=True),
    "batch-last": lv.BatchLast(),
}
QUICK = ("jit.trace", "jit.trace, saved", "make_fx", "make_fx, symbolic")


def _shear():
    block = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2, bias=False))
    field = lv.ShearField(block, block, layers=3, features=4)
    return lv.Network(lv.Lift(4, 2), lv.Flow(field, lv.Verlet(), T=0.7), nn.Linear(4, 2))


MODELS = {
    **{name: lambda name=name: lv.classifier(name, 2, 2, features=4, layers=3, T=0.7) for name in PAPERS},
    "images": lambda: lv.classifier("h2", (1, 8, 8), 3, features=4, layers=2, T=0.7, conv=Images()),
    "dropout": lambda: lv.classifier("h2", 2, 2, features=4, layers=3, T=0.7, dropout_rate=0.3),
    "deep": lambda: lv.classifier("h2", 2, 2, features=4, layers=70, T=0.7),
    "shear": _shear,
}


def _tolerance(expected, terms):
    return rounding(expected, terms=terms) * torch.finfo(expected.dtype).eps / EPS


def _network(name, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return MODELS[name]().to(dtype).eval()


def _inputs(name, batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *((1, 8, 8) if name == "images" else (2,)), generator=generator, dtype=dtype)


def _engines(network):
    """Every engine that takes the network's flows."""
    for name, engine in ENGINES.items():
        try:
            yield name, network.with_backprop(engine)
        except ValueError:
            continue


def _same_elsewhere(network, name, recorder, dtype=torch.float64):
    with quiet():
        recorded = RECORDERS[recorder](network, _inputs(name, 5, dtype))
    for batch in (5, 9, 70) if recorder in ANY_BATCH else (5,):
        z = 2 * _inputs(name, batch, dtype) + 1
        expected = network.with_backprop(lv.Stored())(z).detach()
        near(recorded(z).detach(), expected, _tolerance(expected, terms=20 * 70))


def test_what_is_traced_is_the_network():
    """Whatever the engine, with weights that require a gradient and without."""
    for engine in (lv.Auto(), lv.Fused(), lv.Reversible(), lv.Checkpointed(), lv.BatchLast()):
        with torch.no_grad():
            _same_elsewhere(_network("h2").with_backprop(engine), "h2", "jit.trace")
    for name, recorder in zip(("h1", "shear", "dropout", "images"), QUICK, strict=True):
        _same_elsewhere(_network(name).with_backprop(lv.Auto()), name, recorder)


@pytest.mark.slow
@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_the_network(name, recorder):
    dtype = torch.float64
    if "onnx" in recorder:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        dtype = torch.float32  # its runtime has few operators in double precision
    engines = dict(_engines(_network(name, dtype)))
    turn = (list(MODELS).index(name) + list(RECORDERS).index(recorder)) % len(
        engines
    )  # minutes, not hours: one in turn
    for engine in {"auto", "fused" if "fused" in engines else "auto", list(engines)[turn]}:
        _same_elsewhere(engines[engine], name, recorder, dtype)


def test_an_exported_program_has_the_operator_only_where_it_is_asked_for():
    network, x = _network("h2"), _inputs("h2", 5)
    graphs = [str(torch.export.export(network.with_backprop(e), (x,)).graph) for e in (lv.Auto(), lv.Fused())]
    assert ["liouville" in graph for graph in graphs] == [False, True]


@pytest.mark.parametrize(
    "scheme, name", [("ImplicitMidpoint", "antisymmetric"), ("SymplecticEuler", "dropout-partitioned")]
)
def test_what_cannot_be_recorded_says_so(scheme, name):
    """A number of iterations, or noise: they would be those of the example for ever."""
    flow = samples.flow(scheme, name)
    with pytest.raises(NotImplementedError, match="record"):
        torch.jit.trace(flow, samples.inputs(flow.field))
    with pytest.raises(NotImplementedError, match="record"):
        torch.export.export(flow, (samples.inputs(flow.field),))


@pytest.mark.parametrize(
    "reader, error", [(torch.jit.script, NotImplementedError), (torch.fx.symbolic_trace, TypeError)]
)
def test_readers_of_source_text_are_refused(reader, error):
    with pytest.raises(error, match=r"torch\.export"):
        reader(_network("h2"))


@pytest.mark.parametrize("name", ["h1", "h2", "verlet", "resnet", "images", "deep"])
def test_floating_point_operations_are_counted(name):
    """To a fifth of the plain loop's, which differentiates the first state where nobody asks for it."""
    counts = []
    for engine in (lv.Stored(), lv.Auto(), lv.Fused()):
        with FlopCounterMode(display=False) as counter:
            _network(name).with_backprop(engine)(_inputs(name, 5)).sum().backward()
        counts.append(counter.get_total_flops())
    assert all(abs(count - counts[0]) < 0.2 * counts[0] for count in counts), counts


@pytest.mark.parametrize("engine", ENGINES.values(), ids=repr)
def test_shapes_without_numbers(engine):
    """On the meta device and under FakeTensorMode, forwards and backwards."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    network, x = _network("h2").with_backprop(engine), _inputs("h2", 5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = network(torch.empty(5, 2, dtype=x.dtype))
        fake.sum().backward()
    meta = network.to("meta")(x.to("meta"))
    meta.sum().backward()
    assert meta.shape == fake.shape == (5, 1)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=repr)
def test_inside_a_checkpoint(engine, reentrant):
    flow, gradients = samples.flow("SymplecticEuler", "separable"), []
    for run in (
        flow,
        lambda y: torch.utils.checkpoint.checkpoint(flow.with_backprop(engine), y, use_reentrant=reentrant),
    ):
        y = samples.inputs(flow.field).requires_grad_()
        flow.zero_grad()
        run(y).square().sum().backward()
        gradients.append([y.grad, *(w.grad.clone() for w in flow.parameters())])
    for a, b in zip(*gradients, strict=True):
        near(a, b, 4 * rounding(b, terms=100 * samples.N))


def test_a_network_with_another_engine_shares_everything_else():
    inner = nn.ModuleDict({"flow": lv.zoo.h2(4, layers=2, T=1.0)})
    flow, norm = lv.zoo.ms1(4, layers=2, T=1.0), nn.LayerNorm(4)
    network = lv.Network(
        nn.Sequential(lv.Lift(4), inner["flow"]), nn.Sequential(flow, norm, flow, inner), nn.Linear(4, 1)
    )
    other = network.eval().with_backprop(lv.Reversible())
    assert [f.backprop for f in network.flows()] == [lv.Auto()] * 2
    assert [f.backprop for f in other.flows()] == [lv.Reversible()] * 2
    assert other.body[0] is other.body[2] and other.body[3]["flow"] is other.lift[1]
    assert other.body[1] is norm and other.head is network.head and not other.body[0].training
    assert [id(p) for p in other.parameters()] == [id(p) for p in network.parameters()]
    assert other.state_dict().keys() == network.state_dict().keys()
    with pytest.raises(ValueError, match="no inverse"):
        lv.classifier("resnet", 2, 2, features=4, layers=2, T=1.0).with_backprop(lv.Reversible())


def _compiled_together(flows, recorder):
    """All flows in one compiled module: values and gradients against the eager loop."""

    class Together(nn.Module):
        def __init__(self, flows):
            super().__init__()
            self.flows = nn.ModuleList(flows)

        def forward(self, *inputs):
            return [flow(y) for flow, y in zip(self.flows, inputs, strict=True)]

    model, stored = Together(flows), Together([flow.with_backprop(lv.Stored()) for flow in flows])
    compiled = COMPILERS[recorder](model, None)
    for batch in (3, 5):
        found = []
        for run in (compiled, stored):
            inputs = [samples.inputs(flow.field, batch).to(next(flow.parameters())).requires_grad_() for flow in flows]
            out = run(*inputs)
            sums = sum(x.square().sum() for x in out)
            found.append([*out, *torch.autograd.grad(sums, [*inputs, *model.parameters()])])
        for a, b in zip(*found, strict=True):
            near(a.detach(), b.detach(), _tolerance(b.detach(), terms=400 * samples.N))


DENSE = [
    ("ForwardEuler", "hamiltonian"),
    ("SymplecticEuler", "separable"),
    ("Verlet", "pair"),
    ("Yoshida4", "separable-ms3"),
    ("LeapfrogMidpoint", "hamiltonian-full"),
    ("RK4", "hamiltonian"),
    ("ForwardEuler", "antisymmetric-gamma"),
    ("SymplecticEuler", "second-order"),
    ("LeapfrogMidpoint", "symmetric"),
]


def _flows(pairs, dtype, **more):
    return [samples.flow(scheme, name, **more).to(dtype) for scheme, name in pairs]


@pytest.mark.parametrize("scheme, name", [DENSE[k] for k in (0, 1, 4, 5, 6)])
def test_a_compiler_is_shown_no_factor(scheme, name):
    """Inductor forgets the factor of a sum (docs/compilers.md): no sum that a compiler sees has one."""
    graphs = []
    torch._dynamo.reset()
    flow = samples.flow(scheme, name)
    torch.compile(flow, backend=lambda graph, _: graphs.append(graph) or graph.forward)(samples.inputs(flow.field))
    assert graphs and not any("alpha" in node.kwargs for graph in graphs for node in graph.graph.nodes)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # C++ compilers on a busy machine
@pytest.mark.parametrize("recorder", COMPILERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_scheme_under_a_compiler(recorder, dtype):
    _compiled_together(_flows(DENSE, dtype), recorder)


@pytest.mark.slow
@pytest.mark.parametrize("recorder", COMPILERS)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=repr)
def test_every_engine_under_a_compiler(engine, recorder):
    _compiled_together(_flows(DENSE[1:2], torch.float64, backprop=engine), recorder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme, name", [("ImplicitMidpoint", "hamiltonian"), ("ImplicitSymplecticEuler", "hamiltonian")]
)
def test_implicit_schemes_under_a_compiler(scheme, name):
    _compiled_together(_flows([(scheme, name)], torch.float64), "inductor's passes")


@pytest.mark.slow
def test_torch_forgets_alpha_still():
    """Fails when torch has mended it: then `liouville.compilers.advanced` is ``torch.add(x, velocity, alpha=step)`` for
    every torch from that version on, and docs/compilers.md says until which version it was not."""
    torch._dynamo.reset()
    x, a, b = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (12, 12, 4))
    forgetful = torch.compile(lambda x, a, b: torch.add(x, a @ b, alpha=-0.5))
    near(forgetful(x, a, b), x + a @ b, _tolerance(x + a @ b, terms=20))
