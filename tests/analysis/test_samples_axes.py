"""What a sample is: a field says how many axes one has, answers per sample ask it, and coupled samples are refused."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.func import jacrev

import liouville as lv
import samples
from liouville import analysis
from liouville.analysis import backward_sensitivity, certify, extreme_singular_values, gradient_norms, layer_jacobians
from measure import EPS, near, norm, randn

# of a field the first scheme whose state is y, or (p, q) = y: then the matrix is that of the flow
WHOLE = ("SymplecticEuler", "ForwardEuler", "RK4")
FLOWS = {
    f: next(s for s in WHOLE if (s, f) in samples.PAIRS)
    for f in samples.FIELDS
    if not isinstance(getattr(samples.field(f), "field", samples.field(f)), lv.SecondOrderField)
}


@pytest.mark.parametrize("name", FLOWS)
def test_the_matrix_of_a_sample_is_that_of_the_flow(name: str) -> None:
    flow = samples.flow(FLOWS[name], name).eval()
    y = samples.inputs(flow.field, batch=2)
    M = backward_sensitivity(flow, y)
    for k in range(2):
        J = torch.autograd.functional.jacobian(lambda z: flow(z[None])[0], y[k]).reshape(y[k].numel(), -1)
        # a few hundred terms pass through each entry, in another order
        near(M[0, k], J, 100 * EPS * len(J) * max(1.0, norm(J)))


def tokens_flow(sample_ndim: int | None = 2, layers: int = 3, **more) -> lv.Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))
        field = lv.ShearField(F, samples.Tokens(2), layers=layers, features=4, sample_ndim=sample_ndim)
    return lv.Flow(field.double(), lv.SymplecticEuler(), T=1.5, **more)


# ---- unstated -------------------------------------------------------------------------------------------------

READERS = {
    "backward_sensitivity": backward_sensitivity,
    "layer_jacobians": layer_jacobians,
    "extreme_singular_values": extreme_singular_values,
    "log_determinants": analysis.log_determinants,
    "layer_spectra": analysis.layer_spectra,
    "step_margin": analysis.step_margin,
    "flat_states": analysis.states.flat_states,
    "certify": certify,
    "gradient_norms": lambda flow, y: gradient_norms(flow, y, torch.ones_like(y)),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_is_asked_per_sample_has_to_know_what_one_is(reader) -> None:
    y = randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"does not state which axes of \(2, 3, 4\) are one sample.*sample_ndim=2"):
        reader(tokens_flow(None), y)
    reader(tokens_flow(2), y)


def test_what_is_not_per_sample_needs_not_know() -> None:
    """The forward pass, its inverse, gradients in every engine, memory and the error of the inverse."""
    flow, y = tokens_flow(None, backprop=lv.Reversible()), randn(2, 3, 4)
    near(flow.inverse(flow(y)), y, 1000 * EPS)
    gradients = []
    for engine in (lv.Stored(), lv.Auto(), lv.Auto(memory=1), lv.Reversible(), lv.Checkpointed()):
        x = y.clone().requires_grad_()
        gradients.append(torch.autograd.grad(flow.with_backprop(engine)(x).square().sum(), x)[0])
        near(gradients[-1], gradients[0], 1000 * EPS * norm(gradients[0].flatten(1)))
    assert float(analysis.reconstruction_error(flow, y).max()) < 1e-12
    assert len(analysis.memory(flow, y).uses) == 5
    assert analysis.depth_check(flow, y).change > 0


def test_shapes_follow_the_statement() -> None:
    flow, y = tokens_flow(2), randn(2, 3, 4)
    assert backward_sensitivity(flow, y).shape == (4, 2, 12, 12)
    assert gradient_norms(flow, y, y).shape == (4, 2)
    assert extreme_singular_values(flow, y).largest.shape == (2,)
    assert analysis.states.flat_states(flow, y).shape == (4, 2, 12)
    near(analysis.states.flat_states(flow, y)[0], y.flatten(1), 0.0)
    near(analysis.states.flat_states(flow, y)[-1], flow(y).flatten(1), 0.0)


def test_extremes_of_a_sequence_are_those_of_its_matrix() -> None:
    flow, y = tokens_flow(2), randn(2, 3, 4)
    values = torch.linalg.svdvals(backward_sensitivity(flow, y)[0])
    found = extreme_singular_values(flow, y, tolerance=1e-10)
    near(found.largest, values[:, 0], 1e-8)
    near(found.smallest, values[:, -1], 1e-8)
    near(float(found.largest.max()), certify(flow, y).claims[4].measured["largest"], 1.0)


def test_a_certificate_is_about_the_matrices_of_whole_sequences() -> None:
    flow, y = tokens_flow(2), randn(2, 3, 4)
    values = torch.linalg.svdvals(backward_sensitivity(flow, y)[:-1])
    by_name = {c.name: c for c in certify(flow, y).claims}
    near(by_name["singular values"].measured["largest"], float(values.max()), 1e-10)
    near(by_name["singular values"].measured["smallest"], float(values.min()), 1e-10)
    assert certify(flow).holds  # probes are sequences too
    with pytest.raises(ValueError, match=r"no input was given.*sample_ndim"):
        certify(tokens_flow(None))


# ---- coupled samples ------------------------------------------------------------------------------------------


class Coupling(nn.Module):
    """A linear map of each sample and something of the others."""

    def __init__(self, how, width: int = 2) -> None:
        super().__init__()
        self.linear, self.how = nn.Linear(width, width), how

    def forward(self, x):
        return torch.tanh(self.linear(x)) + self.how(x)


def attention_over_the_batch(x):
    return (x @ x.mT).softmax(-1) @ x


def in_pairs(x):
    even = x[: len(x) // 2 * 2].reshape(-1, 2, *x.shape[1:]).flip(1).flatten(0, 1)
    return torch.cat((even, x[len(even) :]))


COUPLED = {
    "before": lambda x: x.cumsum(0),
    "after": lambda x: x.flip(0).cumsum(0).flip(0),
    "mean": lambda x: 1e-3 * x.mean(0),
    "mean without gradient": lambda x: x.mean(0).detach(),
    "statistics": lambda x: nn.functional.batch_norm(x, None, None, training=True),
    "attention": attention_over_the_batch,
    "neighbour": lambda x: x.roll(1, 0),
    "turned round": lambda x: x.flip(0),
    "last reads first": lambda x: torch.cat((torch.zeros_like(x[:-1]), x[:1])),
    "first reads last": lambda x: torch.cat((x[-1:], torch.zeros_like(x[:-1]))),
    "in pairs": in_pairs,
    "place": lambda x: torch.arange(len(x)).to(x)[:, None] * x,
    "number": lambda x: x / len(x),
    "maximum": lambda x: x.amax(0),
    "norm": lambda x: x / x.norm(),
}
SEPARATE = {
    "nothing": torch.zeros_like,
    "shifted by the maximum": lambda x: (x - x.amax()).exp() / (x - x.amax()).exp().sum(-1, keepdim=True),
    "layer norm": lambda x: nn.functional.layer_norm(x, x.shape[-1:]),
    "tiny numbers": lambda x: 1e-30 * x,
    "a root": lambda x: x.abs().sqrt(),
}


def a_flow(how, features: int = 4) -> lv.Flow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Coupling(how)
    return lv.Flow(lv.ShearField(block, block, layers=2, features=features), lv.SymplecticEuler(), T=0.2)


class MixingTheta(NamedTuple):
    w: torch.Tensor


class OwnField(lv.VectorField):
    """A user's, from the base class: y' = w tanh(y) + how(y)."""

    def __init__(self, how) -> None:
        super().__init__(4, 2)
        self.w, self.how = nn.Parameter(torch.tensor([0.5, 0.7])), how

    def theta(self):
        return MixingTheta(self.w)

    def forward(self, y, theta_j):
        return theta_j.w * (torch.tanh(y) + self.how(y))


class Derived(lv.ResidualField):
    """A user's, from one of ours."""

    def __init__(self, how) -> None:
        super().__init__(4, 2)
        self.how = how

    def forward(self, y, theta_j):
        return super().forward(y, theta_j) + self.how(y)

    def jacobian(self, y, theta):
        return None


MAKERS = {
    "modules": a_flow,
    "a field": lambda how: lv.Flow(OwnField(how), lv.ForwardEuler(), T=0.2),
    "a derived field": lambda how: lv.Flow(Derived(how), lv.RK4(), T=0.2),
    "an activation": lambda how: lv.zoo.resnet(
        4, 2, 0.2, activation=lv.Activation("mine", lambda x: torch.tanh(x) + how(x), torch.cos, torch.sin, 9.0, False)
    ),
    "a chain": lambda how: nn.Sequential(nn.Linear(4, 4), Coupling(how, 4)),
}


@pytest.mark.parametrize("how", COUPLED.values(), ids=COUPLED)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_coupled_samples_have_no_matrices(make, how) -> None:
    subject = copy.deepcopy(make(how)).double()
    for batch in (2,) if how is COUPLED["statistics"] else (1, 4):
        with pytest.raises(ValueError, match="couples the samples of a batch"):
            layer_jacobians(subject, randn(batch, 4, seed=batch))


@pytest.mark.parametrize("how", [COUPLED["before"], COUPLED["mean"], COUPLED["statistics"]])
def test_nor_a_certificate_in_single_precision_either(how) -> None:
    with pytest.raises(ValueError, match="couples the samples"):
        certify(a_flow(how), torch.randn(5, 4))
    with pytest.raises(ValueError, match="couples the samples"):
        certify(lv.Network(lv.Lift(4, 2), a_flow(how), nn.Linear(4, 2)))


@pytest.mark.parametrize("how", SEPARATE.values(), ids=SEPARATE)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_treats_samples_one_by_one_is_not_taken_for_coupled(make, how) -> None:
    for dtype in (torch.float32, torch.float64):
        for batch in (1, 5):
            layer_jacobians(copy.deepcopy(make(how)).to(dtype), randn(batch, 4, seed=batch).to(dtype))


def test_one_sequence_is_no_batch_of_tokens() -> None:
    for stated in (None, 1):
        with pytest.raises(ValueError, match=r"couples the samples.*sample_ndim=2"):
            backward_sensitivity(
                lv.Flow(
                    lv.ShearField(*[Coupling(attention_over_the_batch)] * 2, layers=2, features=4, sample_ndim=stated),
                    lv.SymplecticEuler(),
                    T=1.0,
                ),
                torch.randn(3, 4),
            )


def test_a_token_axis_in_front_of_the_batch_is_one_sample_or_refused() -> None:
    """(tokens, batch, features), as torch's attention takes it without batch_first."""
    flow = lv.Flow(
        lv.ShearField(*[Coupling(attention_over_the_batch)] * 2, layers=2, features=4, sample_ndim=2),
        lv.SymplecticEuler(),
        T=1.0,
    )
    backward_sensitivity(flow, torch.randn(3, 5, 4))  # over axis -2, which belongs to a sample
    first = a_flow(lambda x: x.mean(0))
    first.field.sample_ndim = 2
    with pytest.raises(ValueError, match="couples the samples"):
        backward_sensitivity(first, torch.randn(3, 5, 4))


def test_a_module_for_one_number_of_samples_is_refused_in_a_sentence() -> None:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            assert len(x) == 4, "four samples, please"
            return self.linear(x)

    flow = lv.Flow(lv.ShearField(Four(), Four(), layers=2, features=4), lv.SymplecticEuler(), T=1.0)
    with pytest.raises(ValueError, match=r"cannot be evaluated on 10 samples.*AssertionError: four samples, please"):
        backward_sensitivity(flow, torch.randn(4, 4))


# ---- the statement --------------------------------------------------------------------------------------------


def test_the_statement_is_kept_wherever_the_field_goes() -> None:
    flow = tokens_flow(2)
    wrapped = (
        lv.dropout(flow.field, 0.2),
        flow.refined().field,
        flow.with_backprop(lv.Reversible()).field,
        copy.deepcopy(flow).field,
        lv.SecondOrderField(flow.field),
        lv.dropout(flow.field, 0.2).eval().in_run(),
    )
    assert all(field.sample_ndim == 2 for field in wrapped)
    assert "sample_ndim=2" in repr(flow.field)
    assert "sample_ndim" not in repr(tokens_flow(None).field)


def test_it_is_saved(tmp_path) -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    for stated in (None, 2):
        field = lv.ShearField(block, block, layers=2, features=4, sample_ndim=stated)
        lv.save(lv.Network(lv.Lift(4), lv.Flow(field, lv.Verlet(), T=1.0), nn.Linear(4, 1)), tmp_path / "x.safetensors")
        assert lv.load(tmp_path / "x.safetensors").body.field.sample_ndim == stated


@pytest.mark.parametrize(("value", "axis"), [(0, -1), (True, -1), (1.0, -1), ("2", -1), (-2, -1), (2, -3)])
def test_a_statement_that_leaves_the_features_out_is_refused(value, axis: int) -> None:
    with pytest.raises(ValueError, match=r"sample_ndim must be a whole number of at least \d"):
        lv.ShearField(nn.Linear(2, 2), nn.Linear(2, 2), layers=2, features=4, feature_axis=axis, sample_ndim=value)


def test_inputs_with_fewer_axes_than_a_sample_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 axes or more, with 4 features on axis -1"):
        tokens_flow(2)(randn(4))


def test_an_equation_per_sample_has_to_know_what_one_is() -> None:
    """Its linear systems would leave the coupling of tokens out, and the gradients would be wrong."""
    field = OwnField(lambda y: y.mean(-2, keepdim=True))
    field.sample_ndim = 2
    with pytest.raises(ValueError, match="needs vectors"):
        lv.Flow(field, lv.ImplicitMidpoint(), T=0.1)
    field = OwnField(torch.zeros_like)
    flow = lv.Flow(field, lv.ImplicitMidpoint(), T=0.1)
    with pytest.raises(ValueError, match="does not state"):
        flow(torch.randn(2, 3, 4))
    flow(torch.randn(3, 4))


@pytest.mark.parametrize("stated", [2, 3])
def test_a_subclass_of_ours_states_its_own(stated: int) -> None:
    class Sequences(Derived):
        sample_ndim = stated

    flow = lv.Flow(Sequences(lambda y: y.mean(-2, keepdim=True)), lv.ForwardEuler(), T=0.5).double()
    y = randn(2, 3, 4)
    if stated == 2:
        J = jacrev(lambda z: flow(z[None])[0])(y[0]).detach().reshape(12, 12)
        near(backward_sensitivity(flow, y)[0, 0], J, 1000 * EPS * norm(J))
    else:
        J = jacrev(flow)(y).detach().reshape(24, 24)
        near(backward_sensitivity(flow, y)[0], J, 1000 * EPS * norm(J))


# ---- readers that are given something else ---------------------------------------------------------------------


def test_log_determinants_of_a_flow_are_those_of_its_layers() -> None:
    flow, y = lv.zoo.h1(4, layers=5, T=1.0).double(), randn(3, 4)
    assert torch.equal(analysis.log_determinants(flow, y), analysis.log_determinants(layer_jacobians(flow, y)))
    for wrong in ((flow,), (layer_jacobians(flow, y), y)):
        with pytest.raises(ValueError, match="a flow and its input"):
            analysis.log_determinants(*wrong)


MATRIX_READERS = {
    "norms": analysis.norms,
    "singular_spectra": analysis.singular_spectra,
    "growth_exponents": lambda m: analysis.growth_exponents(m, 0.1),
    "gradient_alignment": lambda m: analysis.gradient_alignment(m, torch.ones(4)),
    "gradient_verdict": analysis.gradient_verdict,
}


@pytest.mark.parametrize("reader", MATRIX_READERS.values(), ids=MATRIX_READERS)
def test_matrices_are_asked_for_in_a_sentence(reader) -> None:
    with pytest.raises(TypeError, match=r"expected (the )?matrices .*Flow"):
        reader(lv.zoo.h2(4, layers=2, T=1.0))


def test_a_chain_asks_for_samples_in_a_sentence() -> None:
    for analyse in (backward_sensitivity, extreme_singular_values):
        with pytest.raises(TypeError, match="ndarray; convert it with"):
            analyse([nn.Linear(4, 4)], torch.ones(2, 4).numpy())
        with pytest.raises(ValueError, match="at least one sample"):
            analyse([nn.Linear(4, 4)], torch.zeros(0, 4))
    with pytest.raises(ValueError, match="for a Network, got Flow"):
        analysis.certified_radius(lv.zoo.h2(4, 2, 1.0), torch.zeros(2, 4))


def test_a_prediction_for_every_token_has_a_radius_of_its_own() -> None:
    network, x = lv.classifier("h2", 4, 3, 6, layers=3, T=1.0).double(), randn(2, 3, 4)
    radius = analysis.certified_radius(network, x, "global")
    assert radius.shape == (2, 3)
    near(
        radius.flatten(), analysis.certified_radius(network, x.reshape(6, 4), "global"), 100 * EPS * float(radius.max())
    )


def test_memory_layouts_make_no_difference() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2))
        field = lv.ShearField(F, nn.Conv2d(2, 2, 1), layers=2, features=4, feature_axis=-3).double()
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=1.0), randn(2, 4, 3, 3)
    found = [extreme_singular_values(flow, x).largest for x in (y, y.contiguous(memory_format=torch.channels_last))]
    near(found[0], found[1], 1e-10)


NETWORK_READERS = {
    **READERS,
    "energy_balance": analysis.energy_balance,
    "margin": lambda n, x: analysis.margin(n),
    "log_upper_bound": lambda n, x: analysis.log_upper_bound(n),
    "reconstruction_error": analysis.reconstruction_error,
    "first_nonfinite_layer": analysis.first_nonfinite_layer,
    "structure": lambda n, x: analysis.structure(n),
}


@pytest.mark.parametrize("reader", NETWORK_READERS.values(), ids=NETWORK_READERS)
def test_what_is_no_flow_is_refused_in_a_sentence(reader) -> None:
    for subject in (nn.Linear(2, 2), lv.classifier("h2", 2, 2, 4, layers=2, T=1.0)):
        if reader is certify and isinstance(subject, lv.Network):
            continue
        with pytest.raises(ValueError, match=r"got (Linear|Network)"):
            reader(subject, torch.randn(3, 2))


@pytest.mark.parametrize("read", [*list(READERS.values())[:-1], analysis.depth_check, analysis.reconstruction_error])
def test_what_is_no_dense_tensor_of_numbers_is_named(read) -> None:
    flow = lv.zoo.h2(4, layers=2, T=1.0)
    for y, word in ((torch.eye(4).to_sparse(), "dense"), (torch.empty(2, 4, device="meta"), "meta")):
        with pytest.raises(ValueError, match=word):
            read(flow, y)
    with pytest.raises(TypeError, match=r"expected a torch\.Tensor, got list"):
        read(flow, [[1.0, 2.0, 3.0, 4.0]])
