"""A network without the library: the same numbers, in a process that cannot import it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import liouville as lv
import samples
from liouville.columns import Category, Columns, Number
from liouville.facts import Facts
from liouville.zoo.networks import Images
from measure import near, rounding
from turns import one_in

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "sweeps"))
from recorders import RECORDERS, quiet

PAPERS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")
NETWORKS = [(name, shape) for name in PAPERS for shape in ((2,), (1, 8, 8)) if (name, shape) != ("verlet", (1, 8, 8))]
TABLE = Columns((Number("age", 40.0, 10.0, 38.0, missing=True), Category("city", ("Bonn", "Rome"), missing=True)))
FACTS = {
    "flowers": Facts("flowers", (2,), classes=3, offset=(1.0, -2.0), scale=(2.0, 0.5)),
    "line": Facts("line", (2,), 0, outputs=3, offset=1.0, scale=3.0, target_offset=(1.0, 2.0, 3.0), target_scale=0.5),
    "table": Facts("table", (5,), classes=3, preprocessing=TABLE),
}


def _network(name, shape=(2,), **more):
    conv = Images() if len(shape) == 3 else None
    inputs = shape[0] if conv is None else shape
    return lv.classifier(name, inputs, 3, features=6, layers=3, T=0.7, conv=conv, **more).double()


def _same(found, expected):
    near(found, expected, rounding(expected, terms=200))


@pytest.mark.parametrize(("name", "shape"), one_in(5, NETWORKS))
def test_it_is_the_network_for_any_batch(name, shape):
    """In value and gradient, on shares of nothing, with weights that have their names."""
    network = _network(name, shape)
    plain = network.to_plain(torch.randn(5, *shape).double())
    assert plain.state_dict().keys() == network.state_dict().keys()
    assert not {p.data_ptr() for p in plain.parameters()} & {p.data_ptr() for p in network.parameters()}
    assert not any(type(part).__module__.startswith("liouville") for part in plain.modules())
    assert plain(torch.zeros(0, *shape).double()).shape == (0, 3)
    for batch in (1, 7):
        x = 2 * torch.randn(batch, *shape).double() + 1
        ours, theirs = network(x), plain(x)
        _same(theirs, ours)
        for model, y in ((network, ours), (plain, theirs)):
            model.zero_grad()
            y.square().sum().backward()
        for mine, other in zip(plain.parameters(), network.parameters(), strict=True):
            _same(mine.grad, other.grad)


@pytest.mark.parametrize("engine", [lv.Reversible(), lv.Fused(), lv.Auto()], ids=repr)
def test_whatever_the_engine(engine):
    network, x = _network("h2", backprop=engine), torch.randn(4, 2).double()
    _same(network.to_plain(x)(x), network(x))


def test_it_is_the_network_in_evaluation_mode():
    network, x = _network("h2", dropout_rate=0.3), torch.randn(4, 2).double()
    plain = network.train().to_plain(x)
    assert network.training
    _same(plain(x), network.eval()(x))


def test_where_the_data_lie_goes_with_it():
    """The places of the inputs are a constant of the operations, and no weight."""
    network = lv.Network(lv.Lift(4, place=(0, 3)), lv.zoo.h2(4, layers=2, T=1.0), nn.Linear(4, 2))
    plain = network.to_plain(torch.zeros(1, 2))
    assert plain.state_dict().keys() == network.state_dict().keys()
    x = torch.randn(3, 2)
    torch.testing.assert_close(plain(x), network(x), atol=1e-6, rtol=0)
    plain.load_state_dict(network.state_dict())
    assert plain.to("meta")(x.to("meta")).shape == (3, 2)


@pytest.mark.parametrize("name", FACTS)
def test_raw_inputs_are_prepared_as_the_network_does_it(name):
    network = _network("h2", FACTS[name].shape)
    network.facts = FACTS[name]
    if name == "table":
        rows = [{"age": 31.0, "city": "Rome"}, {"age": None, "city": None}, {"age": 2.5, "city": "Oslo"}]
        raw = torch.tensor([[31.0, 1.0], [float("nan")] * 2, [2.5, -1.0]]).double()
    else:
        rows = raw = torch.randn(4, 2).double()
    outputs = network(network.transform(rows)).detach()
    expected = outputs if FACTS[name].classes else network.predict(rows)
    for plain in (network.to_plain(raw=True), network.to_plain(raw, raw=True)):
        _same(plain(raw).detach(), expected)
        assert plain(raw.float()).dtype == torch.float64
    scaled = network.transform(rows)
    _same(network.to_plain()(scaled).detach(), outputs)


@pytest.mark.slow
def test_a_process_without_the_library_loads_it(tmp_path):
    """All networks in one process, which asserts that there is no liouville; one of them learns there."""
    models = {}
    for name, shape in NETWORKS:
        x, network = torch.randn(4, *shape).double(), _network(name, shape)
        models[f"{name}{len(shape)}"] = (network.to_plain(x), x, network(x).detach())
    torch.save(models, tmp_path / "models.pt")
    code = """
import sys, torch
try:
    import liouville
    raise SystemExit("liouville is here")
except ModuleNotFoundError:
    pass
models = torch.load(sys.argv[1], weights_only=False)
worst = max(float((model(x) - y).abs().max() / y.abs().max()) for model, x, y in models.values())
model, x, y = models["h21"]
optimizer = torch.optim.Adam(model.train().parameters(), 1e-2)
losses = []
for _ in range(20):
    loss = (model(x) - 1).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    losses.append(float(loss))
print(len(models), worst, losses[-1] < 0.5 * losses[0])
"""
    where = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "models.pt")]
    ran = subprocess.run(command, env=where, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if "liouville is here" in ran.stderr:
        pytest.skip("liouville is installed in this environment")
    assert ran.returncode == 0, ran.stderr
    count, worst, learned = ran.stdout.split()
    assert int(count) == 19 and float(worst) < 1e-13 and learned == "True"


def test_what_it_needs_is_said():
    network = _network("h2")
    with pytest.raises(ValueError, match=r"give an example, network\.to_plain\(x\)"):
        network.to_plain()
    with pytest.raises(ValueError, match=r"does not know its data"):
        network.to_plain(torch.zeros(1, 2).double(), raw=True)
    implicit = lv.Network(lv.Lift(4), samples.flow("ImplicitMidpoint", "separable"), nn.Linear(4, 1))
    with pytest.raises(NotImplementedError, match="record"):
        implicit.to_plain(torch.zeros(1, 2).double())


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["onnx, legacy", "onnx, dynamo"])
@pytest.mark.parametrize("name", [name for name, shape in NETWORKS if shape == (1, 8, 8)])
def test_onnx_of_every_network_on_images(name, exporter):
    """`tests/test_compilers.py` does it on vectors, and with every engine."""
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    network = _network(name, (1, 8, 8), backprop=lv.Auto()).float().eval()
    with quiet():
        there = RECORDERS[exporter](network, torch.randn(2, 1, 8, 8))
    x = torch.randn(7, 1, 8, 8)
    torch.testing.assert_close(there(x), network(x).detach(), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_onnx_of_raw_rows():
    """Numbers, missing values and places of categories, to onnxruntime."""
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    network = _network("h2", (5,)).float()
    network.facts = FACTS["table"]
    plain = network.to_plain(raw=True)
    rows = torch.tensor([[31.0, 1.0], [float("nan")] * 2, [2.5, -1.0], [40.0, 0.0]]).double()
    with quiet():
        there = RECORDERS["onnx, dynamo"](plain, rows[:2])
    torch.testing.assert_close(there(rows), plain(rows).detach(), atol=1e-6, rtol=1e-6)
