"""What is kept: live storages counted, behind the forward pass and at the peak of the backward pass."""

import gc
from dataclasses import dataclass

import pytest
import torch

import liouville as lv
import samples
from backprop.runs import MODES, compare
from live import Live
from measure import randn
from turns import one_in

DEPTHS = (16, 64, 256)
ROWS = 3000  # half a state is then more than any weight of all layers, or fingerprint


def run(engine, N, scheme=None, build=lv.SeparableHamiltonianField, size=ROWS * 2 * 8):
    """Live storages behind the forward pass, and their peak during the backward pass; by default of states only."""
    flow = lv.Flow(build(4, N).double(), scheme or lv.SymplecticEuler(), T=1.0, backprop=engine)
    y = randn(ROWS, 4)
    with Live(size, known=(y, *flow.parameters())) as live:
        out = flow(y)
        kept = live.count()
        out.sum().backward()
    assert all(p.grad is not None for p in flow.parameters())
    return kept, live.peak


def test_stored_keeps_every_layer_and_checkpointed_their_square_root():
    stored = [run(lv.Stored(), N)[0] for N in DEPTHS]
    kept, peak = zip(*[run(lv.Checkpointed(), N) for N in DEPTHS], strict=True)
    for i in (1, 2):  # four times the layers
        assert 3.5 < stored[i] / stored[i - 1] < 4.5
        assert 1.5 < kept[i] / kept[i - 1] < 2.5
        assert 1.5 < peak[i] / peak[i - 1] < 2.5
    assert kept[2] < 3 * 256**0.5 + 10  # p and q of 16 segments


PAIRS = {
    "separable": (lv.SymplecticEuler(), lv.SeparableHamiltonianField),
    "pair": (lv.Verlet(), lv.PairField),
    "antisymmetric": (lv.LeapfrogMidpoint(), lv.AntisymmetricField),
    "dropout": (lv.SymplecticEuler(), lambda n, N: lv.dropout(lv.SeparableHamiltonianField(n, N), 0.2)),
}
CONSTANT = [e for e in MODES.values() if e.anchors is None]


@pytest.mark.parametrize(
    "engine, pair",
    one_in(
        3, [(e, "separable") for e in CONSTANT] + [(CONSTANT[i % len(CONSTANT)], p) for i, p in enumerate(PAIRS) if i]
    ),
)
def test_what_reversible_keeps_does_not_grow_with_the_depth(engine, pair):
    """To the storage: kept behind the forward pass, and at the peak of the backward pass."""
    scheme, build = PAIRS[pair]
    counts = [run(engine, N, scheme, build) for N in DEPTHS]
    assert len(set(counts)) == 1, counts
    kept, peak = counts[0]
    # the output, the end of both parts and their remainders; then costates, gradients, and what one velocity needs
    assert kept <= 2 + 4
    assert peak <= kept + 30


def test_reversible_keeps_only_fingerprints_besides():
    """Storages of any size: 33 fingerprints of two parts at most; from 33 layers on their number is constant."""
    kept = [run(lv.Reversible(), N, size=1)[0] for N in (64, 128)]
    assert kept[0] == kept[1]
    assert kept[0] - run(lv.Reversible(), 64)[0] <= 33 * 2 + 10


@pytest.mark.parametrize("m", [1, 4, 10, 256, 1000])
def test_anchors_keep_every_mth_state(m):
    """Beyond what `Reversible` keeps: p and q in front of the layers m, 2m, ... < N, forwards and backwards."""
    for N in (16, 64):
        anchors, plain = run(lv.Reversible(anchors=m), N), run(lv.Reversible(), N)
        stored = 2 * ((N - 1) // m)
        assert anchors[0] - plain[0] == stored
        assert 0 <= anchors[1] - plain[1] - stored <= 4  # copies of one anchor to start from


def test_implicit_schemes_keep_no_more_either():
    def build(features, layers):
        return lv.HamiltonianField(features, layers, init=lv.Smooth(mean=0.5))

    counts = [run(lv.Reversible(), N, lv.ImplicitMidpoint(), build) for N in (4, 16)]
    assert counts[0] == counts[1]


def test_the_count_notices_an_engine_that_keeps_everything():
    @dataclass(frozen=True)
    class Pretends(lv.Checkpointed):
        def run(self, *args):
            return lv.Stored().run(*args)

    kept = [run(Pretends(), N)[0] for N in (16, 64)]
    assert kept[1] / kept[0] > 3.5


class Breaks(lv.SeparableHamiltonianField):
    """Raises in layer 4, once ``after`` more evaluations went well; None for never."""

    after = None

    def p_dot(self, q, theta_j):
        if self.after is not None and torch.equal(theta_j.K_q, self.K_q[4]):
            self.after -= 1
            if self.after < 0:
                raise RuntimeError("layer 4")
        return super().p_dot(q, theta_j)


@pytest.mark.parametrize("engine", one_in(3, samples.BACKPROPS))
def test_nothing_is_left_when_the_output_is_unused_or_a_layer_raises(engine):
    """In the forward pass, and for engines that evaluate a layer again in the backward pass too."""
    field = Breaks(4, 8).double()
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=1.0, backprop=engine), randn(ROWS, 4)

    def attempt(after):
        field.after = after
        with pytest.raises(RuntimeError, match="layer 4"):
            flow(y).sum().backward()

    stream, cache = torch.get_rng_state(), torch.is_autocast_cache_enabled()
    with Live(ROWS * 2 * 8, known=(y,)) as live:
        flow(y)
        assert live.count() == 0
        attempt(after=0)
        if engine not in (lv.Stored(), lv.Auto()):
            attempt(after=1)
        gc.collect()  # a traceback refers to itself
        assert live.count() == 0
    assert all(p.grad is None for p in flow.parameters())
    assert torch.is_grad_enabled()
    assert (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()) == (False, cache)
    assert torch.equal(stream, torch.get_rng_state())
    field.after = None
    compare(flow, engine, y[:3])
