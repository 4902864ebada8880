"""The chunked loss over a vocabulary: torch's own in value and every derivative, at a memory that does not grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from liouville.experiments.beyond.step_costs import peak
from liouville.train import linear_cross_entropy
from measure import EPS, near, randn

TOKENS, FEATURES, CLASSES = (3, 7), 5, 11
OPTIONS = [
    {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored, "bias": bias, "chunk": chunk}
    for (reduction, smoothing, ignored), (bias, chunk) in zip(
        itertools.product(("mean", "sum", "none"), (0.0, 0.3), (-100, 4)),
        itertools.cycle([(True, None), (False, 1), (True, 20), (False, 21), (True, 500)]),
        strict=False,
    )
]
EVERY = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))


def inputs(bias: bool = True) -> list[Tensor]:
    shapes = ((*TOKENS, FEATURES), (CLASSES, FEATURES), *([(CLASSES,)] if bias else []))
    return [randn(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes)]


def targets(ignored: int = -100, classes: int = CLASSES) -> Tensor:
    t = torch.arange(21).reshape(TOKENS) * 7 % classes
    t[0, 1] = t[2, 6] = ignored
    return t


def reference(h: Tensor, w: Tensor, b: Tensor | None, t: Tensor, **options: object) -> Tensor:
    found = F.cross_entropy(F.linear(h, w, b).flatten(0, -2), t.flatten(), **options)  # type: ignore[arg-type]
    return found.reshape(t.shape) if options.get("reduction") == "none" else found


def both(options: dict, t: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Ours and torch's, as functions of what has gradients."""
    own = {k: v for k, v in options.items() if k != "bias"}
    theirs = {k: v for k, v in own.items() if k != "chunk"}
    return (
        lambda h, w, b=None: linear_cross_entropy(h, w, t, b, **own),
        lambda h, w, b=None: reference(h, w, b, t, **theirs),
    )


# values, and sums over the tokens of what the sums over features and classes make, each rounded a few times
TERMS = 21 * (FEATURES + CLASSES)
TOLERANCE = 10 * EPS * TERMS


@EVERY
def test_it_is_torch_s_in_value_and_gradient(options: dict) -> None:
    """Also the second time that the same graph is gone through, which computes the logits again."""
    ours, theirs = both(options, targets(options["ignore_index"]))
    x = inputs(options["bias"])
    found, expected = ours(*x), theirs(*x)
    near(found, expected, TOLERANCE)
    slope = torch.cos(torch.arange(found.numel(), dtype=torch.float64)).view_as(found)
    right = torch.autograd.grad(expected, x, slope)
    for _ in range(2):
        for a, b in zip(torch.autograd.grad(found, x, slope, retain_graph=True), right, strict=True):
            near(a, b, TOLERANCE * max(1.0, float(b.detach().abs().max())))


@EVERY
def test_second_derivatives_are_torch_s(options: dict) -> None:
    ours, theirs = both(options, targets(options["ignore_index"]))

    def curvature(loss: Callable[..., Tensor]) -> list[Tensor]:
        x = inputs(options["bias"])
        first = torch.autograd.grad(loss(*x).sin().sum(), x, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), x))  # type: ignore[arg-type]

    for a, b in zip(curvature(ours), curvature(theirs), strict=True):
        near(a, b, TOLERANCE * max(1.0, float(b.detach().abs().max())) * 10)


def test_a_weight_tied_with_the_embedding() -> None:
    """Its gradient is that of both uses; twice, since second derivatives see both as well."""
    ids, t = targets(0), targets()

    def curvature(loss: Callable[..., Tensor]) -> list[Tensor]:
        w = randn(CLASSES, FEATURES).requires_grad_()
        (g,) = torch.autograd.grad(loss(w[ids].sin(), w), w, create_graph=True)
        return [g, *torch.autograd.grad(g.square().sum(), w)]

    ours, theirs = both({"chunk": 4}, t)
    for a, b in zip(curvature(ours), curvature(theirs), strict=True):
        near(a, b, TOLERANCE * max(1.0, float(b.detach().abs().max())))


class Products(TorchDispatchMode):
    """How many matrix products are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("needed", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_gradients_that_nobody_needs_are_not_computed(needed: tuple[int, ...], reduction: str) -> None:
    """Products a chunk: one for the logits, again for single losses, one for each of two gradients."""
    x = [a.requires_grad_(k in needed) for k, a in enumerate(inputs())]
    with Products() as products:
        loss = linear_cross_entropy(x[0], x[1], targets(), x[2], reduction=reduction, chunk=4).sum()  # type: ignore[arg-type]
        found = torch.autograd.grad(loss, [x[k] for k in needed]) if needed else ()
    again = int(reduction == "none" and bool(needed))
    assert products.count == 6 * (1 + again + sum(k < 2 for k in needed))
    if needed:
        right = torch.autograd.grad(reference(*x, targets(), reduction=reduction).sum(), [x[k] for k in needed])
        for a, b in zip(found, right, strict=True):
            near(a, b, TOLERANCE)


def test_without_gradients_none_are_computed() -> None:
    with Products() as products, torch.no_grad():
        assert not linear_cross_entropy(*inputs(False), targets(), chunk=4).requires_grad
    assert products.count == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("products", ["float32", "16 bits"])
def test_in_16_bits_it_is_no_worse_than_torch(
    dtype: torch.dtype, autocast: bool, reduction: str, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors against float64 of the same numbers, over many tokens: in float16 the gradient of each is tiny.

    With products of 16 bits, as a GPU takes them, a gradient is rounded twice, chunk by chunk and at the end, and
    torch's once: its error times sqrt(2), as roundings are independent.
    """
    if products == "16 bits":
        monkeypatch.setattr("liouville.train.vocabulary._of_products", lambda dtype, kind: dtype)
    N, d, V = 512, 32, 300
    h, w = (randn(n, d, seed=k).mul(0.3).to(dtype) for k, n in enumerate((N, V)))
    t = torch.arange(N) * 37 % V
    x = [a.double().requires_grad_() for a in (h, w)]
    truth = [reference(*x, None, t, reduction=reduction).mean()]
    truth += torch.autograd.grad(truth[0], x)

    def errors(loss: Callable[..., Tensor]) -> list[float]:
        y = [a.to(torch.float32 if autocast else dtype).requires_grad_() for a in (h, w)]
        with torch.autocast("cpu", dtype, enabled=autocast):
            value = loss(*y).mean()
        found = [value, *torch.autograd.grad(value, y)]
        return [float((a.detach().double() - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True)]

    ours = errors(lambda h, w: linear_cross_entropy(h, w, t, reduction=reduction))
    theirs = errors(lambda h, w: reference(h, w, None, t, reduction=reduction))
    for a, b in zip(ours, theirs, strict=True):
        assert a <= (2**0.5 if products == "16 bits" else 1.0) * b + 1e-6, (ours, theirs)


def test_memory_does_not_grow_with_the_tokens() -> None:
    """But for the hidden states' own gradient; torch's grows by several rows of logits for each."""
    d, V = 16, 512
    w = torch.randn(V, d, requires_grad=True)

    def grown(loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        sizes = []
        for N in (512, 2048):
            h, t = torch.randn(N, d, requires_grad=True), torch.arange(N) % V
            loss(h, t).backward()
            sizes.append(peak(lambda h=h, t=t: loss(h, t).backward()))  # type: ignore[misc]
        return (sizes[1] - sizes[0]) / 1536

    ours = grown(lambda h, t: linear_cross_entropy(h, w, t))
    assert ours <= 4 * (3 * d + 8)  # bytes: gradients and their parts before they are joined, losses, targets
    assert grown(lambda h, t: F.cross_entropy(F.linear(h, w), t)) >= 4 * 2 * V


def test_nothing_to_count() -> None:
    h, w, _ = inputs()
    t = torch.full(TOKENS, -100)
    assert linear_cross_entropy(h, w, t).isnan() and F.cross_entropy(F.linear(h, w).flatten(0, 1), t.flatten()).isnan()
    assert linear_cross_entropy(h, w, t, reduction="sum") == 0
    assert linear_cross_entropy(h[:0], w, t[:0], reduction="none").shape == (0, 7)
    near(
        linear_cross_entropy(h[0, 0], w, torch.tensor(3)), F.cross_entropy(F.linear(h[0, 0], w), torch.tensor(3)), 1e-14
    )


def test_bytes_may_be_targets() -> None:
    h, w, _ = inputs()
    near(linear_cross_entropy(h, w, targets(3).to(torch.uint8)), linear_cross_entropy(h, w, targets(3)), 0.0)


@pytest.mark.slow
def test_a_compiled_model_runs_it() -> None:
    torch._dynamo.reset()
    t = targets()
    ours, theirs = both({"chunk": 4}, t)
    x = inputs()
    found = torch.autograd.grad(torch.compile(lambda *x: 2 * ours(*x), backend="aot_eager")(*x), x)
    for a, b in zip(found, torch.autograd.grad(2 * theirs(*x), x), strict=True):
        near(a, b, TOLERANCE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be from 0 to 1, got 1.5"),
        ({"chunk": 0}, ValueError, "chunk must be at least one token, got 0"),
        ({"weight": nn.Linear(11, 5).double().weight}, ValueError, r"weight must be \(classes, features\).*\(5, 11\)"),
        ({"bias": randn(5)}, ValueError, r"bias must be \(11,\).*\(5,\)"),
        ({"targets": targets()[:2]}, ValueError, r"targets must be \(3, 7\).*\(2, 7\)"),
        ({"targets": randn(*TOKENS)}, TypeError, "targets must be whole numbers.*torch.float64"),
        ({"hidden": torch.ones(*TOKENS, FEATURES)}, TypeError, "one dtype.*torch.float32, torch.float64"),
    ],
)
def test_errors(change: dict, error: type[Exception], message: str) -> None:
    h, w, _ = inputs()
    with pytest.raises(error, match=message):
        linear_cross_entropy(**{"hidden": h, "weight": w, "targets": targets(), **change})


def test_transforms_are_refused_with_the_way_round() -> None:
    h, w, _ = inputs()
    with pytest.raises(NotImplementedError, match=r"use F.cross_entropy\(F.linear"):
        torch.func.grad(lambda h: linear_cross_entropy(h, w.detach(), targets()))(h.detach())
