r"""Newton's method with conjugate gradients: for the convex head, and the parts that training the weights shares.

A step minimises g^T p + 1/2 p^T H p, where only products H v are known, by preconditioned conjugate gradients, stopped
early (inexact Newton) or at the boundary of a trust region (Steihaug). For a linear head H is exact and the problem
convex, so that Newton's method converges quadratically.
"""

from __future__ import annotations

__all__ = ["Direction", "Head", "HeadSolution", "armijo", "steihaug"]

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from liouville.precision import require_digits
from liouville.task import Task

Product = Callable[[Tensor], Tensor]

_FORMED = 256  # weights of a head whose Hessian is formed, to precondition with it


class Direction(NamedTuple):
    """p, the number of products that it took, and ||p||_M."""

    p: Tensor
    products: int
    norm: float


def steihaug(
    product: Product,
    gradient: Tensor,
    precondition: Product = lambda r: r,
    *,
    tolerance: float = 1e-2,
    iterations: int = 20,
    radius: float = math.inf,
) -> Direction:
    r"""An approximate minimiser p of g^T p + 1/2 p^T H p with ||p||_M <= radius, by preconditioned CG from p = 0.

    The iterates grow in the norm of M, the matrix that ``precondition`` inverts; the first one outside the region,
    and any direction along which H does not curve upwards, is followed to the boundary. Without a boundary a
    direction of no curvature ends the iteration (and is taken as it is where it is the first).

    Args:
        product: v -> H v, H symmetric.
        gradient: g.
        precondition: r -> M^-1 r, symmetric and positive definite.
        tolerance: stop at a residual of this factor times ||g||.
        iterations: stop after so many products.
        radius: of the trust region.

    Reference: Steihaug 1983; Nocedal & Wright 2006, algorithm 7.2; with preconditioner Conn, Gould & Toint 2000,
    algorithm 7.5.1.

    Examples:
        >>> H = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
        >>> steihaug(lambda v: H @ v, torch.tensor([-1.0, -2.0]), tolerance=1e-6).p
        tensor([0.0909, 0.6364])
    """
    p, r = torch.zeros_like(gradient), -gradient
    z = precondition(r)
    d, rz, stop = z, r @ z, tolerance * r.norm()
    pp, pd, dd = r.new_zeros(()), r.new_zeros(()), rz.clone()  # ||p||^2, p^T M d, ||d||^2, all in M
    k = 0
    for k in range(iterations + 1):
        if k == iterations or rz <= 0 or r.norm() <= stop:
            break
        Hd = product(d)
        curvature = d @ Hd
        step = rz / curvature
        outside = pp + 2 * step * pd + step**2 * dd >= radius**2
        if curvature <= 0 or outside:
            if math.isinf(radius):
                return Direction(p, k + 1, float(pp.sqrt())) if k else Direction(d, 1, float(dd.sqrt()))
            far = (torch.sqrt(pd**2 + dd * (radius**2 - pp)) - pd) / dd
            return Direction(p + far * d, k + 1, radius)
        p, r = p + step * d, r - step * Hd
        pp = pp + 2 * step * pd + step**2 * dd
        z = precondition(r)
        rz, before = r @ z, rz
        beta = rz / before
        d, pd, dd = z + beta * d, beta * (pd + step * dd), rz + beta**2 * dd
    return Direction(p, k, float(pp.sqrt()))


def armijo(
    value: Callable[[float], float], start: float, slope: float, *, decrease: float, tries: int, step: float = 1.0
) -> tuple[float, float, int] | None:
    """The first step in step, step/2, step/4 ... with value(step) < start + decrease step slope: (step, value, tries).

    None if none of ``tries`` steps does. A value that is not finite is no decrease.

    Examples:
        >>> armijo(lambda t: (t - 0.25) ** 2, 0.0625, -0.5, decrease=1e-3, tries=10)
        (0.25, 0.0, 3)
    """
    for k in range(1, tries + 1):
        now = value(step)
        if now < start + decrease * step * slope:
            return step, now, k
        step /= 2
    return None


class HeadSolution(NamedTuple):
    """W (outputs, p + 1), the value there, and the gradient norm before every Newton step and at the end."""

    W: Tensor
    value: float
    gradients: list[float]


class Head:
    r"""The convex problem of a linear head: min_W loss(Z W^T, y) + R(W), Z = [z, 1] the features and a column of ones.

    Its exact Hessian, V -> (L''(Z W^T) Z V^T)^T Z + R'' V, is applied. The preconditioner has mu I in the place of R'',
    mu its value along one direction; of the loss it has all for up to 256 weights, so that with weight decay it is
    exact. For more it is Z^T diag(c) Z + mu I for each output, where c is the mean curvature of the loss per sample at
    W; for softmax mu I on what all outputs have in common, which does not change the loss. That is exact for one
    output, for squared errors, and for softmax at W = 0, each with weight decay.

    Args:
        z: features, (samples, p).
        y: targets.
        task: the loss.
        value: W -> R(W), differentiable.
        curvature: V -> R'' V; R is quadratic in W.
        bias: whether the head has one; without it there is no column of ones.

    Examples:
        >>> z, y = torch.randn(30, 2).double(), torch.arange(30) % 2
        >>> head = Head(z, y, Task("logistic", 2), lambda W: 0.005 * W.square().sum(), lambda V: 0.01 * V)
        >>> head.solve(torch.zeros(1, 3).double()).gradients[-1] < 1e-12
        True
    """

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        task: Task,
        value: Callable[[Tensor], Tensor],
        curvature: Product,
        bias: bool = True,
    ) -> None:
        require_digits(z.dtype, "Newton's method for a head")
        self.Z = torch.cat((z, torch.ones_like(z[:, :1])), 1) if bias else z
        self.y, self.task, self._value, self._curvature = y, task, value, curvature

    @torch.no_grad()
    def value(self, W: Tensor) -> float:
        """Loss and penalty."""
        return float(self.task.loss(self.Z @ W.mT, self.y) + self._value(W))

    def gradient(self, W: Tensor) -> Tensor:
        """Shaped like W."""
        dS = self.task.gradient(self.Z @ W.mT, self.y)
        leaf = W.detach().requires_grad_()
        with torch.enable_grad():
            R = self._value(leaf)
        dR = torch.autograd.grad(R, leaf)[0] if R.requires_grad else torch.zeros_like(W)
        return dS.mT @ self.Z + dR

    def inverse(self, W: Tensor, *, tolerance: float, iterations: int) -> Product:
        """G -> H(W)^-1 G by conjugate gradients."""
        S, shape = self.Z @ W.mT, W.shape
        precondition = self._preconditioner(S, W)

        def product(v: Tensor) -> Tensor:
            V = v.view(shape)
            return (self.task.curvature(S, self.Z @ V.mT).mT @ self.Z + self._curvature(V)).flatten()

        def solve(G: Tensor) -> Tensor:
            direction = steihaug(product, -G.flatten(), precondition, tolerance=tolerance, iterations=iterations)
            return direction.p.view(shape)

        return solve

    def solve(self, W: Tensor, *, steps: int = 50, tolerance: float | None = None) -> HeadSolution:
        r"""Newton's method from W; the tolerance of CG falls with the gradient, so that convergence is quadratic.

        Args:
            W: where to start.
            steps: at most so many.
            tolerance: stop where ||gradient|| <= tolerance times that at W = 0; 2^10 eps by default, which rounding
                still lets it reach. A line search that finds no decrease ends it too.
        """
        eps = torch.finfo(W.dtype).eps
        first = float(self.gradient(torch.zeros_like(W)).norm())
        stop = first * (2**10 * eps if tolerance is None else tolerance)
        value, g = self.value(W), self.gradient(W)
        norms = [float(g.norm())]
        for _ in range(steps):
            if not norms[-1] > stop:
                break
            forcing = max(min(0.1, norms[-1] / first), eps)
            p = -self.inverse(W, tolerance=forcing, iterations=W.numel() + 10)(g)
            slope, noise = float((g * p).sum()), 8 * eps * abs(value)
            found = armijo(lambda t: self.value(W + t * p), value + noise, slope, decrease=1e-4, tries=20)  # noqa: B023
            if found is None:
                break
            W = W + found[0] * p
            value, g = found[1], self.gradient(W)
            norms.append(float(g.norm()))
        return HeadSolution(W, value, norms)

    def _preconditioner(self, S: Tensor, W: Tensor) -> Product:
        signs = torch.where(torch.arange(W.numel(), device=W.device) % 2 == 0, 1.0, -1.0).to(W).view_as(W)
        mu = (signs * self._curvature(signs)).sum() / W.numel()
        if W.numel() <= _FORMED:
            H = self._formed(S)
            H.diagonal().add_(mu + torch.finfo(W.dtype).eps * H.diagonal().max())
            whole = torch.linalg.cholesky(H)
            return lambda r: torch.cholesky_solve(r[:, None], whole)[:, 0]
        M = self.Z.mT @ (self._mean_curvature(S)[:, None] * self.Z)
        mu = mu + torch.finfo(W.dtype).eps * M.diagonal().max()
        M.diagonal().add_(mu)
        factor = torch.linalg.cholesky(M)
        softmax = self.task.kind == "softmax"

        def solve(r: Tensor) -> Tensor:
            R = r.view_as(W)
            common = R.mean(0, keepdim=True) if softmax else torch.zeros_like(R[:1])  # softmax does not see it
            return (torch.cholesky_solve((R - common).mT, factor).mT + common / mu).flatten()

        return solve

    def _formed(self, S: Tensor) -> Tensor:
        """The loss's part of H as a matrix, over the entries of W by rows."""
        columns = []
        for unit in torch.eye(S.shape[1]).to(S):
            curvature = self.task.curvature(S, unit.expand_as(S))
            columns.append((curvature[:, :, None] * self.Z[:, None]).flatten(1).mT @ self.Z)
        return torch.cat(columns, 1)

    def _mean_curvature(self, S: Tensor) -> Tensor:
        """The mean eigenvalue of each sample's block of L''; for softmax without the zero of (1, ..., 1)."""
        units = torch.eye(S.shape[1]).to(S)
        diagonal = torch.stack([self.task.curvature(S, e.expand_as(S))[:, k] for k, e in enumerate(units)])
        return diagonal.sum(0) / (S.shape[1] - (self.task.kind == "softmax"))
