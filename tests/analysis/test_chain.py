"""Any chain of modules: its matrices are autograd's, and what has no per-sample matrix is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.analysis import backward_sensitivity, layer_jacobians
from measure import EPS, near, randn


class Residual(nn.Module):
    """x + F(x), as in a ResNet."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def mlp() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), randn(
        4, 3
    )


def resnet() -> tuple[nn.Module, torch.Tensor]:
    def block():
        return Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True)))

    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), block(), block(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        network(torch.randn(20, 1, 4, 4))  # statistics of its own
    return network, randn(3, 1, 4, 4)


def transformer() -> tuple[nn.Module, torch.Tensor]:
    layers = [nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(3)]
    return nn.Sequential(*layers), randn(2, 3, 4)


def mixed() -> tuple[nn.Module, torch.Tensor]:
    network = lv.classifier("h2", inputs=2, classes=3, features=4, layers=5, T=1.0, backprop=lv.Reversible())
    return nn.ModuleList([network.lift, network.body, network.head]), randn(4, 2)


CHAINS = {"mlp": mlp, "resnet": resnet, "transformer": transformer, "with a flow": mixed}


def made(name: str) -> tuple[list[nn.Module], torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chain, x = CHAINS[name]()
    return chain.double().eval(), x


def jacobian(modules: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """By one backward pass per output of one sample."""

    def run(v):
        v = v[None]
        for module in modules:
            v = module(v.clone())
        return v.flatten()

    J = torch.autograd.functional.jacobian(run, x)
    return J.reshape(len(J), -1)


@pytest.mark.parametrize("name", CHAINS)
def test_matrices_of_a_chain_are_those_of_autograd(name: str) -> None:
    chain, x = made(name)
    M, A, state = backward_sensitivity(chain, x), layer_jacobians(chain, x), x
    assert len(M) == len(chain) + 1 and len(A) == len(chain)
    for j, module in enumerate(chain):
        for s in (0, len(x) - 1):
            expected = jacobian(list(chain)[j:], state[s])
            # the same additions in another order: a few hundred terms pass through each entry
            near(M[j][s], expected, 1000 * EPS * max(1.0, float(expected.norm())))
            near(A[j][s], jacobian([module], state[s]), 1000 * EPS * max(1.0, float(A[j][s].norm())))
        state = module(state.clone()).detach()
    near(M[-1], torch.eye(state[0].numel()).double().expand_as(M[-1]), 0.0)


def test_a_plain_sequence_is_a_chain_too() -> None:
    chain, x = made("mlp")
    for a, b in zip(backward_sensitivity(list(chain), x), backward_sensitivity(chain, x), strict=True):
        assert torch.equal(a, b)


def test_the_modules_are_left_as_they_were() -> None:
    chain, x = made("resnet")
    before = {k: v.clone() for k, v in chain.state_dict().items()}
    backward_sensitivity(chain, x)
    assert all(torch.equal(v, before[k]) for k, v in chain.state_dict().items())
    assert all(p.grad is None for p in chain.parameters()) and not x.requires_grad


class Mean(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Rounded(nn.Module):
    def forward(self, x):
        return x.argmax(-1, keepdim=True).to(x.dtype)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


REFUSED = [
    (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "module 1 has BatchNorm1d in training mode"),
    (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval(), "without running statistics"),
    (nn.Sequential(nn.Dropout(0.5)), "at random"),
    ([nn.Linear(3, 3), Mean()], r"module 1 \(Mean\) couples the samples"),
    ([Rounded()], r"module 0 \(Rounded\) has no derivative"),
    ([Pair()], "got tuple"),
    ([nn.Flatten(0)], r"got the shape \(12,\)"),
    ([], "one nn.Module or more"),
    ([torch.tanh], "one nn.Module or more"),
]


@pytest.mark.parametrize(("chain", "message"), REFUSED)
def test_what_has_no_matrix_per_sample_is_refused(chain, message: str) -> None:
    for analyse in (backward_sensitivity, layer_jacobians):
        with pytest.raises(ValueError, match=message):
            analyse(chain, torch.randn(4, 3))


def test_too_much_memory_and_wrong_inputs_are_refused() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    with pytest.raises(ValueError, match=r"GiB.*extreme_singular_values"):
        backward_sensitivity(wide, torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="embedding"):
        backward_sensitivity(nn.Sequential(nn.Embedding(5, 3)), torch.zeros(2, 3, dtype=torch.long))
