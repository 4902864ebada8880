r"""Variable projection: the head is eliminated, and what remains depends only on the other weights, theta.

    f(theta) = F(theta, W(theta)),        W(theta) = argmin_W F(theta, W)

The head is linear, so that W(theta) is a small convex problem on features that are computed once (`Head`). Its gradient
is dF/dtheta at W(theta), since dF/dW = 0 there. For the Gauss-Newton model the scores S = Z(theta) W(theta)^T are
differentiated *with* the head (GNvpro), by the implicit function theorem:

    dS = dZ W^T + Z dW^T,        H dW = -(dF_W / dtheta) dtheta = -(L'(S)^T dZ + (L''(S) dZ W^T)^T Z),

H the exact Hessian of the head; or without the second term, which is cheaper and makes a poorer model.
"""

from __future__ import annotations

__all__ = ["ReducedJacobian", "ReducedObjective", "head_matrix", "linear_head"]

from collections.abc import Callable

import torch
from torch import Tensor, nn

from liouville.network import Network
from liouville.task import Task
from liouville.train.alternate import require_network
from liouville.train.flat import Jacobian, Named
from liouville.train.newton import Head, HeadSolution
from liouville.train.objective import Expansion, Objective
from liouville.train.regularisers import Regulariser


class ReducedObjective(Objective):
    r"""f(theta) = min_W F(theta, W): everything but the head, the head being at its optimum.

    Args:
        network, x, y, task, penalty: as for `Objective`; the network's head is linear (`linear_head`), and the
            penalty is a sum of a part of theta and a part of the head, the latter quadratic and positive definite.
        full: differentiate the eliminated head, too, in the Gauss-Newton product.
        steps: Newton steps for the head, at most.

    ``W`` is the head of the last evaluation, [weight, bias]; the next one starts from it.

    Raises:
        ValueError: if the head is not linear, or nothing else has weights.

    Reference: Newman, Ruthotto, Hart & van Bloemen Waanders 2021 (2007.13171), GNvpro; Golub & Pereyra 1973.

    Examples:
        >>> import liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0).double()
        >>> x, y = torch.randn(20, 2).double(), torch.arange(20) % 2
        >>> objective = ReducedObjective(network, x, y, Task("logistic", 2), lv.train.Penalty(head_decay=1e-3))
        >>> theta = objective.vector()
        >>> value, gradient, product = objective.expand(theta)
        >>> value < objective.task.loss(network(x), y)
        tensor(True)
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        task: Task,
        penalty: Regulariser,
        *,
        full: bool = True,
        steps: int = 50,
    ) -> None:
        modules, linear, place = linear_head(network)
        names = [n for n, p in network.named_parameters() if p.requires_grad and not n.startswith(place)]
        if not names:
            raise ValueError("nothing is left to train beside the head; use Head.solve.")
        super().__init__(network, x, y, task, penalty, names)
        self.full, self.steps, self._place, self._biased = full, steps, place, linear.bias is not None
        self._read = _reader(modules)
        self.W = head_matrix(linear)

    def assign(self, w: Tensor) -> None:
        """Write theta, and the optimal head that belongs to it, into the network."""
        self.value(w)
        self.weights.assign(w)
        with torch.no_grad():
            for name, part in self._named_head(self.W).items():
                self.network.get_parameter(name).copy_(part)

    @torch.no_grad()
    def value(self, w: Tensor) -> float:
        named = self.weights.named(w)
        self._count(1, len(self.x))
        return self._eliminate(self._evaluation(named, self._read, self.x), named)[1].value

    def expand(self, w: Tensor) -> Expansion:
        J, named = self.jacobian(w), self.weights.named(w)
        R, dR = self._penalty(named, self._named_head(J.W))
        gradient = J.features.transpose(J.dL @ J.W[:, : J.p]) + dR

        def product(v: Tensor) -> Tensor:
            self._count(2, len(self.x))
            dS, dW = J.forward(v)
            data = J.transpose(self.task.curvature(J.S, dS), self._head_curvature(named, dW))
            return data + self._curvature({**named, **self._named_head(J.W)}, self.weights.named(v))

        return Expansion(float(J.loss + R), gradient, product)

    def jacobian(self, w: Tensor) -> ReducedJacobian:
        """The derivative of scores and head at w, the head being eliminated."""
        named = self.weights.named(w)
        features = Jacobian(self._evaluation, self.weights, w, self._read, self.x)
        self._count(2, len(self.x))
        head, solution = self._eliminate(features.outputs, named)
        return ReducedJacobian(features, head, solution.W, self.full)

    def _eliminate(self, z: Tensor, named: Named) -> tuple[Head, HeadSolution]:
        """The head's problem at these features, and its solution, from which the next one starts."""
        head = Head(
            z,
            self.y,
            self.task,
            lambda W: self._evaluation({**named, **self._named_head(W)}, self.penalty.value),
            lambda V: self._head_curvature(named, V),
            bias=self._biased,
        )
        solution = head.solve(self.W, steps=self.steps)
        self.W = solution.W
        return head, solution

    def _head_curvature(self, named: Named, V: Tensor) -> Tensor:
        product = self._curvature({**named, **self._named_head(self.W)}, self._named_head(V))
        m, p = len(V), V.shape[1] - self._biased
        return torch.cat((product[: m * p].view(m, p), product[m * p :].view(m, self._biased)), 1)

    def _named_head(self, W: Tensor) -> Named:
        """[weight, bias] -> the head's parameters by name."""
        if not self._biased:
            return {f"{self._place}weight": W}
        return {f"{self._place}weight": W[:, :-1], f"{self._place}bias": W[:, -1]}


class ReducedJacobian:
    r"""dtheta -> (dS, dW): how scores and head follow theta, and the adjoint of that.

    Args:
        features: the derivative of the features z.
        head: the head's problem at z.
        W: its solution.
        full: whether the head follows; else dW = 0.
    """

    def __init__(self, features: Jacobian, head: Head, W: Tensor, full: bool) -> None:
        self.features, self.head, self.W, self.full = features, head, W, full
        self.p = features.outputs.shape[1]
        self.S = head.Z @ W.mT
        self.loss, self.dL = head.task.loss(self.S, head.y), head.task.gradient(self.S, head.y)
        eps = torch.finfo(W.dtype).eps
        self._inverse = head.inverse(W, tolerance=2**4 * eps, iterations=10 * W.numel())

    def forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """dS = dZ W^T + Z dW^T, and dW = -H^-1 (L'^T dZ + (L'' dZ W^T)^T Z)."""
        dz = self.features.forward(v)
        dS, dW = dz @ self.W[:, : self.p].mT, torch.zeros_like(self.W)
        if self.full:
            B = self._bent(dS).mT @ self.head.Z
            B[:, : self.p] += self.dL.mT @ dz
            dW = -self._inverse(B)
        return dS + self.head.Z @ dW.mT, dW

    def transpose(self, r: Tensor, Q: Tensor) -> Tensor:
        """The theta with <theta, v> = <r, dS(v)> + <Q, dW(v)> for every v."""
        W = self.W[:, : self.p]
        dz = r @ W
        if self.full:
            u = self._inverse(r.mT @ self.head.Z + Q)
            dz = dz - self.dL @ u[:, : self.p] - self._bent(self.head.Z @ u.mT) @ W
        return self.features.transpose(dz)

    def _bent(self, dS: Tensor) -> Tensor:
        return self.head.task.curvature(self.S, dS)


def linear_head(network: nn.Module) -> tuple[list[nn.Module], nn.Linear, str]:
    """The head in two: modules without weights, then one ``nn.Linear``; and the prefix of the latter's parameters.

    Raises:
        ValueError: for any other head, or a module that is no `liouville.Network`.

    Examples:
        >>> import liouville as lv
        >>> linear_head(lv.classifier("verlet", inputs=2, classes=2, features=4, layers=2, T=1.0))[2]
        'head.1.'
    """
    head = require_network(network).head
    parts = list(head) if isinstance(head, nn.Sequential) else [head]
    *before, last = parts
    if not isinstance(last, nn.Linear) or any(True for module in before for _ in module.parameters()):
        raise ValueError(
            "the head must be one nn.Linear, after modules without weights at most, for its problem to be convex; got "
            f"{head}. Train all weights together instead (head='joint')."
        )
    return before, last, f"head.{len(before)}." if isinstance(head, nn.Sequential) else "head."


def head_matrix(linear: nn.Linear) -> Tensor:
    """[weight, bias], a copy."""
    weight = linear.weight.detach()
    return weight.clone() if linear.bias is None else torch.cat((weight, linear.bias.detach()[:, None]), 1)


def _reader(modules: list[nn.Module]) -> Callable[[Network, Tensor], Tensor]:
    def read(network: Network, x: Tensor) -> Tensor:
        z = network.features(x)
        for module in modules:
            z = module(z)
        if z.dim() != 2:
            raise ValueError(
                f"the head must read vectors, (samples, features), got {tuple(z.shape)}; add nn.Flatten()."
            )
        return z

    return read
