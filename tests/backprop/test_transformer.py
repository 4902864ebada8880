"""Any block of yours: a transformer whose blocks are shears, run without storing its layers."""

import itertools

import pytest
import torch
from torch import nn

import liouville as lv
from backprop.runs import MODES, compare, growth, largest
from measure import EPS, at, generator, step_jacobian

BLOCKS = 24
modes = pytest.mark.parametrize("engine", MODES.values(), ids=MODES)


class Attention(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, heads, dropout=0.0, batch_first=True)

    def forward(self, x):
        x = self.norm(x)
        return self.attend(x, x, x, need_weights=False)[0]


class Perceptron(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.wide, self.narrow = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x):
        return self.narrow(nn.functional.gelu(self.wide(self.norm(x))))


def transformer(width, engine=lv.Stored(), dtype=torch.float64, blocks=BLOCKS):
    """p' = -attention(q), q' = perceptron(p) on (batch, tokens, 2 width): one step of length 1/4 a block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F, G = ([kind(width) for _ in range(blocks)] for kind in (Perceptron, Attention))
    field = lv.ShearField(F, G, layers=blocks, features=2 * width).to(dtype)
    return lv.Flow(field, lv.SymplecticEuler(), T=blocks / 4, backprop=engine)


def tokens(width, batch=2, dtype=torch.float64, seed=0):
    return torch.randn(batch, 5, 2 * width, generator=generator(seed), dtype=dtype)


@modes
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_equal_stored(engine, training):
    flow, y = transformer(8).train(training), tokens(8)
    factor = growth(flow, y)
    # one rounding per term of the sums in a block, 16 wide, made in each of 24 blocks and carried on
    compare(flow, engine, y, allowed=lambda b: 10 * 16 * BLOCKS * EPS * factor * largest(b))


def test_the_determinant_is_one():
    """Measured as a sum of log-determinants of the blocks, each along the path, since a product would round."""
    flow = transformer(4)
    field, theta, y = flow.field, flow.field.theta(), tokens(4, batch=1)[:, :3]
    state, logs = field.split(y), []
    for j in range(BLOCKS):
        A = step_jacobian(flow.scheme, field, state, flow.h, j)
        logs.append(torch.linalg.slogdet(A).logabsdet)
        assert (A - torch.eye(len(A))).abs().max() > 1e-3  # it is a map that does something
        with torch.no_grad():
            state = flow.scheme.step(field, state, at(theta, j), flow.h)
    assert abs(float(torch.stack(logs).sum())) < 1e-9


@modes
def test_a_few_steps_reduce_the_loss(engine):
    """In float32, to the mean of its tokens: what is trained is the attention, which alone sees other tokens."""
    flow = transformer(8, engine, torch.float32)
    y = tokens(8, batch=16, dtype=torch.float32)
    target = y.mean(dim=1, keepdim=True).expand_as(y)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = (flow(y) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(after < before for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.8 * losses[0]


def test_exact_blocks_are_undone_to_the_bit():
    """The backward pass verifies it; with torch's own attention, whose kernels must round the same way twice."""
    for autocast in (False, True):
        flow, y = transformer(8, lv.Reversible(exact=True), torch.float32), tokens(8, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = flow(y.requires_grad_())
        out.float().square().sum().backward()


def test_a_template_gets_other_weights_in_every_block():
    """`ShearField` copies and resets a template: no two blocks start from the same weights, attention included."""
    field = lv.ShearField(Perceptron(4), Attention(4), layers=3, features=8)
    for name, w in field.stacked.items():
        if w[0].std() > 0 and not name.endswith("norm__weight"):
            assert not torch.equal(w[0], w[1]), name
