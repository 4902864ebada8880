"""Do gradients survive while a network learns? Sensitivities of every sample, at every depth, during training.

    python docs/tutorials/sensitivities.py --out docs/images/sensitivity-training.png

trains a 64-layer H2 network, a 64-layer residual network and a plain 32-layer tanh MLP of the same width on the Swiss
roll, and draws ||dy_N/dy_{N-l}|| by iteration for each of 50 test points: the line is their median, the band reaches
from the least to the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import liouville as lv
from liouville.analysis import backward_sensitivity, norms

# step 1: three networks, and what each makes of an input
torch.manual_seed(0)
h2 = lv.classifier("h2", inputs=2, classes=2, features=4, layers=64, T=6.4)
resnet = lv.classifier("resnet", inputs=2, classes=2, features=4, layers=64, T=6.4)
mlp_layers = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(32)]
mlp = nn.Sequential(lv.Lift(4), *mlp_layers, nn.Linear(4, 1))


def flow_norms(network: lv.Network) -> Callable[[Tensor], Tensor]:
    """||dy_N/dy_j||_2 of a network with one flow, (N + 1, samples)."""
    return lambda x: norms(backward_sensitivity(network.body, network.lift(x))).two


def mlp_norms(x: Tensor) -> Tensor:
    """The same of the chain of MLP layers: any chain of modules will do."""
    return norms(torch.stack(backward_sensitivity(mlp_layers, mlp[0](x)))).two


# step 2: an ordinary training loop, which stops every few iterations to look
def train(network: nn.Module, measure: Callable[[Tensor], Tensor], iterations: int, every: int) -> Tensor:
    """Adam on the Swiss roll; the norms at iterations 0, every, 2 every, ...: (looks, N + 1, samples)."""
    split = lv.data.load("swiss-roll")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    looks = []
    for iteration in range(iterations + 1):
        if iteration % every == 0:
            with torch.no_grad():
                looks.append(measure(split.x_test[:50]))
        batch = torch.randint(len(split.x_train), (125,))
        scores = network(split.x_train[batch]).squeeze(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(scores, split.y_train[batch].to(scores.dtype))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(looks)


# step 3: train and draw
def main(out: Path, iterations: int = 400, every: int = 10) -> None:
    """Write the figure to ``out``."""
    curves = {
        "h2": train(h2, flow_norms(h2), iterations, every),
        "resnet": train(resnet, flow_norms(resnet), iterations, every),
        "tanh MLP": train(mlp, mlp_norms, iterations, every),
    }
    figure = lv.report.sensitivity_by_iteration(range(0, iterations + 1, every), curves)
    lv.report.save(figure, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sensitivity-training.png"))
    parser.add_argument("--iterations", type=int, default=400)
    arguments = parser.parse_args()
    main(arguments.out, arguments.iterations)
