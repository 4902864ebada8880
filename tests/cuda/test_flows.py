"""On a GPU, pretended or real: pairs of scheme and field, and engines, as on the CPU, and what is waited for."""

import copy

import pytest
import torch
import torch.nn.functional as F

import liouville as lv
import samples
from liouville.backprop.late import Checks, later
from liouville.devices import fast_products
from liouville.norms import _Squared
from liouville.operators import Dense
from measure import generator
from turns import one_in

EPS = torch.finfo(torch.float64).eps


def _step(flow, y):
    """Value, and gradients of the input and of every weight that is trained."""
    y = y.clone().requires_grad_()
    value = flow(y)
    weight = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape).to(value.device)
    inputs = [y, *(p for p in flow.parameters() if p.requires_grad)]
    found = torch.autograd.grad((value * weight).sum(), inputs, allow_unused=True)
    return [value.detach(), *(g for g in found if g is not None)]


def _same(here, there, factor=1e4):
    """The same numbers, up to ``factor`` roundings for sums in another order; the pretence has the same bits."""
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        size = max(1.0, float(a.abs().max()) if a.numel() else 0.0)
        assert b.device.type == "cuda"
        assert float((a - b.cpu()).abs().max() if a.numel() else 0.0) <= factor * torch.finfo(a.dtype).eps * size


@pytest.mark.parametrize(("scheme", "name"), one_in(37, {f"{s}-{f}": (s, f) for s, f in samples.PAIRS}))
def test_every_scheme_and_field(cuda, scheme, name):
    flow = samples.flow(scheme, name).eval()
    y = samples.inputs(flow.field)
    _same(_step(flow, y), _step(copy.deepcopy(flow).to("cuda"), y.to("cuda")))


# waits of a step by itself, and of one whose checks are read later
WAITS = {
    lv.Stored(): (0, 0),
    lv.Checkpointed(): (0, 0),
    lv.Reversible(): (1, 0),
    lv.Reversible(compensated=True): (1, 0),
    lv.Reversible(anchors=2): (1, 0),
    lv.Reversible(exact=True): (3, 2),  # where the grid lies, and whether the run has left it
    lv.BatchLast(): (1, 0),
    lv.Auto(): (0, 0),
    lv.Auto(memory=1): (1, 0),
}


@pytest.mark.parametrize("engine", WAITS, ids=repr)
def test_every_engine_and_what_it_waits_for(cuda, engine):
    flow = lv.zoo.h2(4, layers=4, T=1.0, generator=generator(0), backprop=engine).double()
    y = torch.randn(64, 4, generator=generator(1), dtype=torch.float64)
    here = _step(flow.with_backprop(lv.Stored()), y)
    flow, y = flow.to("cuda"), y.to("cuda")
    loose = 2**27 if engine == lv.Reversible(exact=True) else 1e4  # whose state lies on a grid
    _same(here, _step(flow, y), loose)  # which also makes the trials of a first run
    checks = Checks()

    def unread():
        with later(checks):
            _step(flow, y)

    assert (cuda.waits(lambda: _step(flow, y)), cuda.waits(unread)) == WAITS[engine]
    assert cuda.waits(checks.read) == (len(checks) > 0 or engine not in (lv.Stored(), lv.Checkpointed(), lv.Auto()))


def test_a_buffer_is_watched_without_a_wait(cuda):
    field = lv.SeparableHamiltonianField(4, 3, X=torch.eye(2), init=lv.Normal(0.5), generator=generator(0)).double()
    flow = lv.Flow(field, lv.SymplecticEuler(), T=0.3, backprop=lv.Reversible()).to("cuda")
    y = torch.randn(3, 4, generator=generator(1), dtype=torch.float64).to("cuda")
    _step(flow, y)
    assert cuda.waits(lambda: _step(flow, y)) == 1


def test_the_fused_kernel_says_that_it_has_no_device_but_the_cpu(cuda):
    flow = lv.zoo.h2(4, layers=2, T=1.0, backprop=lv.Fused()).to("cuda")
    with pytest.raises(lv.NoKernelError, match="on cuda; there is one on the CPU"):
        flow(torch.zeros(2, 4, device="cuda"))


def test_auto_keeps_a_share_of_the_devices_memory_and_goes_back_with_the_batch_innermost(cuda):
    flow = lv.zoo.h2(4, layers=4, T=1.0).to("cuda")
    y = torch.zeros(64, 4, device="cuda")
    assert "within" in lv.Auto().choose(flow.scheme, flow.field, y).reason
    total = torch.cuda.get_device_properties("cuda").total_memory
    assert f"{total / 4 / 2**20:,.0f} MiB" in lv.Auto().choose(flow.scheme, flow.field, y).reason
    assert lv.Auto(memory=1).choose(flow.scheme, flow.field, y).engine == lv.BatchLast()


@pytest.mark.parametrize("bound", ["norms", "multipliers"])
def test_a_budget_is_kept_where_the_network_is(cuda, bound):
    flow = lv.zoo.h2(4, layers=6, T=6.0, init=lv.Normal(0.8), generator=generator(0)).double()
    here = lv.budgeted(copy.deepcopy(flow), 3.0, bound)
    there = lv.budgeted(flow.to("cuda"), 3.0, bound)
    y = torch.randn(5, 4, generator=generator(1), dtype=torch.float64)
    # t is found to 1e-3 by norms: where an SVD and squaring round differently a grid may end at its next point
    _same(_step(here, y), _step(there, y.to("cuda")), 1e-3 / EPS if bound == "norms" else 1e4)
    assert float(lv.analysis.log_upper_bound(there).exp()) <= 3.0
    # by norms: whether K has numbers, and whether t = 1 keeps the budget; else the weights here, their gradients back
    assert cuda.waits(lambda: _step(there, y.to("cuda"))) == 2


@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 4, 4), (2, 3, 5), (2, 5, 3), (2, 128, 128)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_norms_by_squaring_are_those_of_an_svd(shape, dtype):
    K = torch.randn(shape, generator=generator(0), dtype=dtype)
    K[0] *= 1e-30
    K, L = K.requires_grad_(), K.detach().double().requires_grad_()
    found, exact = _Squared.apply(K), torch.linalg.matrix_norm(L, ord=2)
    eps = torch.finfo(dtype).eps
    assert ((found - exact).abs() <= (2 * eps + 40 * max(shape) * EPS) * exact).all()
    found.sum().backward()
    exact.sum().backward()
    # a gap of singular values parts their vectors, and the one of these draws is at least a hundredth
    assert float((K.grad - L.grad).abs().max()) <= 100 * max(shape) * eps


def test_norms_of_zeros_and_second_derivatives():
    zeros = torch.zeros(2, 3, 3, requires_grad=True)
    _Squared.apply(zeros).sum().backward()
    assert not zeros.grad.any()
    K = torch.randn(2, 3, 3, generator=generator(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(_Squared.apply, (K,))


@pytest.fixture
def tf32(monkeypatch):
    """Products as the matrix units take them, and the setting that says so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    rounded = _Rounded.apply
    monkeypatch.setattr(Dense, "apply", lambda self, w, y, b=None: F.linear(rounded(y), rounded(w), b))
    monkeypatch.setattr(Dense, "apply_transpose", lambda self, w, z: rounded(z) @ rounded(w))
    yield
    torch.set_float32_matmul_precision(before)


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return ((x.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.filterwarnings("error::liouville.DriftWarning")
def test_products_of_ten_bits_are_what_drift_is_measured_in(cuda, tf32, monkeypatch):
    """Rebuilt states are off by roundings of float32, and velocities there by those of TF32."""
    flow = lv.zoo.h2(16, layers=16, T=8.0, generator=generator(0), backprop=lv.Reversible()).to("cuda")
    y = torch.randn(64, 16, generator=generator(1)).to("cuda")
    flow(y).square().sum().backward()
    monkeypatch.setattr("liouville.backprop.passes.fast_products", lambda *_: False)
    flow = copy.deepcopy(flow)  # a field is warned of once
    with pytest.raises((RuntimeError, lv.DriftWarning)):
        flow(y).square().sum().backward()


def test_products_of_ten_bits_are_seen_by_device_dtype_and_kind(cuda, tf32):
    assert fast_products(torch.float32, "cuda", "matrix")
    assert not fast_products(torch.float64, "cuda", "matrix") and not fast_products(torch.float32, "cpu", "matrix")
    torch.set_float32_matmul_precision("highest")
    assert not fast_products(torch.float32, "cuda", "matrix")
    for allowed in (False, True):
        with torch.backends.cudnn.flags(allow_tf32=allowed):
            assert fast_products(torch.float32, "cuda", "convolution") is allowed
            assert fast_products(torch.float32, "cuda", "any") is allowed


def test_auto_inverts_fast_products_with_compensation(cuda, tf32):
    flow = lv.zoo.h2(4, layers=4, T=1.0).to("cuda")
    y = torch.zeros(64, 4, device="cuda")
    assert lv.Auto(memory=1).choose(flow.scheme, flow.field, y).engine == lv.Reversible(compensated=True)


def test_noise_cannot_be_recorded(cuda, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    field = lv.dropout(lv.PairField(4, 2), 0.5)
    with pytest.raises(NotImplementedError, match="repeat that of its first"):
        lv.Flow(field, lv.Verlet(), T=1.0).to("cuda")(torch.zeros(2, 4, device="cuda"))
