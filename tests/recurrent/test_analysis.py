"""What is said of a layer over time is said of the layer inside a network, at lengths of any kind."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import liouville as lv
from liouville.analysis import backward_sensitivity, certify, jacobians, singular_spectra
from liouville.data import Sequences
from liouville.recurrent import AntisymmetricRNN, Cell, HamiltonianRNN, Recurrent, SequenceNetwork, flows_along
from measure import EPS, near, randn

T, B, I, H = 20, 3, 2, 6


def layer(**more):
    return HamiltonianRNN(I, H, batch_first=True, length=T, **more).double()


def network(rnn=None):
    rnn = layer() if rnn is None else rnn
    return SequenceNetwork(rnn, nn.Linear(rnn.output_size, 3)).double()


@pytest.mark.parametrize("more", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_network_is_analysed_by_its_layer_and_says_so(more):
    rnn, x = layer(**more), randn(B, T, I)
    whole, inner = certify(network(rnn), x), certify(rnn, x)
    assert whole.claims == inner.claims and whole.holds
    assert whole.subject == f"the recurrent layer of a SequenceNetwork, without its head: {inner.subject}"
    of_network, of_layer = backward_sensitivity(network(rnn), x), backward_sensitivity(rnn, x)
    if not more:
        of_network, of_layer = [of_network], [of_layer]
    assert len(of_layer) == len(rnn.cells) and all(map(torch.equal, of_network, of_layer))
    with pytest.raises(ValueError, match="over time the claims are about given sequences"):
        certify(network(rnn))


def test_sequences_of_unequal_lengths_are_certified_each_to_its_end():
    net, lengths = network(), [5, 20, 1]
    x = randn(B, T, I)
    x[torch.arange(T) >= torch.tensor(lengths)[:, None]] = torch.nan
    batch = Sequences(x, lengths)
    for given in (batch, pack_padded_sequence(batch.x, torch.tensor(lengths), True, enforce_sorted=False)):
        along = flows_along(net, given)
        assert [flow.layers for (flow,) in along] == lengths
        for b, (flow,) in enumerate(along):
            near(flow(torch.zeros(H).double()), net.rnn.final(batch[b])[0], 10 * EPS * T * H)
    certificate = certify(net, batch)
    assert certificate.holds and [c.flow for c in certificate.claims if c.name == "lower bound"] == [0, 1, 2]
    assert all(f"{n} steps of SymplecticEuler" in certificate.subject for n in lengths)
    with pytest.raises(ValueError, match="equally long to be analysed together; give them one at a time"):
        backward_sensitivity(net, batch)
    with pytest.raises(ValueError, match="of steps of length h"):
        certify(net, Sequences(randn(B, T, I), [T] * B, torch.full((T,), 0.5)))
    with pytest.raises(ValueError, match="certified at a tensor of samples"):
        certify(lv.zoo.h2(4, 8, 1.0), batch)


CELLS = {
    "separable": lambda: layer(),
    "two levels": lambda: layer(num_layers=2),
    "oscillators": lambda: Recurrent(
        Cell(I, lv.SecondOrderField(lv.SymmetricField(3, layers=1)), lv.Verlet(), h=0.3), batch_first=True
    ).double(),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("chunk", [1, 3 * H * H, 2**22])
def test_singular_values_over_time_pair_and_are_those_of_the_matrices(name, chunk, monkeypatch):
    """A product of T matrices n x n errs by eps T n ||A|| with ||A|| = s_1, by which each singular value is off: so
    s_k s_(n-k) - 1 by s_1 times that, and the smallest ones, near 1/s_1, by more than any other relative to their size.
    """
    monkeypatch.setattr(jacobians, "_CHUNK", chunk)
    rnn, x = CELLS[name](), randn(B, T, I)
    with torch.no_grad():
        for p in rnn.parameters():
            p.mul_(1.5)
    found, matrices = singular_spectra(network(rnn), x), backward_sensitivity(rnn, x)
    found, matrices = (found, matrices) if isinstance(found, list) else ([found], [matrices])
    assert len(found) == len(rnn.cells)
    for s, A in zip(found, matrices, strict=True):
        assert s.shape == (T + 1, B, H)
        largest = float(s.max())
        assert largest > 2, "a law of matrices that hardly move says little"
        allowed = 10 * EPS * T * H * largest
        near(s, torch.linalg.svdvals(A), allowed)
        near(s * s.flip(-1), torch.ones_like(s), 2 * allowed * largest)
        near(s[-1], torch.ones(B, H), 10 * EPS)
        assert bool((s[..., 0] >= 1 - allowed).all())


def test_values_of_a_damped_layer_do_not_pair_and_those_of_flows_and_chains_are_there_too():
    damped = AntisymmetricRNN(I, H, batch_first=True, length=T, gamma=0.5).double()
    s = singular_spectra(damped, randn(B, T, I))
    assert float(s[0].prod(-1).max()) < 0.999
    flow, chain, y = (
        lv.zoo.midpoint(3, 8, 1.0).double(),
        nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(),
        randn(B, 3),
    )
    near(singular_spectra(flow, y), singular_spectra(backward_sensitivity(flow, y)), 1e-12)
    assert [tuple(s.shape) for s in singular_spectra(chain, randn(B, 4))] == [(B, 3), (B, 3), (B, 3)]
    tokens = lv.zoo.h2(4, 3, 1.0).double()
    assert singular_spectra(tokens, randn(2, 5, 4)).shape == (4, 2, 5, 4)
    with pytest.raises(ValueError, match="a flow or a layer and its input, or only matrices"):
        singular_spectra(torch.eye(3), y)


class Largest(TorchDispatchMode):
    """The most numbers that any operation has put out, in memory of its own."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.untyped_storage().nbytes() // out.element_size())
        return out


def test_no_more_is_kept_than_is_returned(monkeypatch):
    """1,000 steps of 6 x 6 matrices would be six times the values that are returned."""
    monkeypatch.setattr(jacobians, "_CHUNK", 1024)
    with Largest() as kept:
        s = singular_spectra(layer(), randn(1, 1000, I))
    assert s.numel() <= kept.numbers <= 2 * s.numel()
    with Largest() as all_of_them:
        backward_sensitivity(layer(), randn(1, 1000, I))
    assert all_of_them.numbers == H * s.numel()
