"""Each paper's update, written out by hand from the paper and without the library's helpers, equals the zoo's.

Equation numbers: P1 is 1705.03341, P2 2105.13205, P3 2104.13166, P4 1709.03698. Vectors are columns, as in P2 and P3,
one sample at a time; the weights of layer j are read from the field and named as in the paper.
"""

import inspect
import re

import pytest
import torch
import torch.nn.functional as F

import liouville as lv
from liouville import zoo
from measure import EPS, far, generator, near, randn

N, T = 7, 1.4
H = T / N
tanh = torch.tanh


def make(name, features=4, **more):
    init = lv.Normal(0.7)  # different weights in every layer and half: nothing may be mixed up
    return zoo.MODELS[name](features, N, T, init=init, generator=generator(3), **more).double()


def columns(flow, samples=3, shape=()):
    return randn(samples, flow.field.features, *shape, seed=4)


def agree(flow, by_hand, y):
    """Each layer rounds some 30 terms; these weights let a rounding grow less than 1e3 in seven layers."""
    with torch.no_grad():
        out = flow(y)
        expected = torch.stack([by_hand(flow.field, sample) for sample in y])
    near(out, expected, 1e3 * N * 30 * EPS * float(expected.abs().max().clamp(min=1.0)))
    far(out, y, 0.1)


# ---- P1 --------------------------------------------------------------------------------------------------------


def resnet(f, y):
    """P1 (2.1): Y_{j+1} = Y_j + h sigma(Y_j K_j + b_j), rows, b_j a number; our K is the paper's K^T."""
    row = y[None, :]
    for j in range(N):
        row = row + H * tanh(row @ f.K[j].T + f.b[j])
    return row[0]


def antisymmetric(gamma):
    def by_hand(f, y):
        """P1 (4.12): Y_{j+1} = Y_j + h sigma(1/2 Y_j (K_j - K_j^T - gamma I) + b_j); our W is the paper's K^T."""
        row = y[None, :]
        for j in range(N):
            K = f.W[j].T
            row = row + H * tanh(0.5 * row @ (K - K.T - gamma * torch.eye(4).double()) + f.b[j])
        return row[0]

    return by_hand


def verlet(f, y):
    """P1 sec. 4.3: z_{j+1/2} = z_{j-1/2} - h sigma(K_j^T y_j + b_j), y_{j+1} = y_j + h sigma(K_j z_{j+1/2} + b_j)."""
    z, y = y[:2], y[2:]
    for j in range(N):
        z = z - H * tanh(f.K[j].T @ y + f.b[j])
        y = y + H * tanh(f.K[j] @ z + f.b[j])
    return torch.cat((z, y))


def leapfrog_P1(f, y):
    """P1 sec. 4.3: y_{j+1} = 2 y_j - y_{j-1} + h^2 sigma(-C^T C y_j + b_j), the authors' code's y_{-1} = y_0."""
    before = y
    for j in range(N):
        C, b = f.force.C[j], f.force.b[j]
        before, y = y, 2 * y - before + H * H * tanh(-C.T @ C @ y + b)
    return y


# ---- P3 --------------------------------------------------------------------------------------------------------


def ms1(f, y):
    """P3 MS1: z_{j+1} = z_j - h s(K_{j,0}^T y_j + b_{j,1}), y_{j+1} = y_j + h s(K_{j,0} z_{j+1} + b_{j,2})."""
    z, y = y[:2], y[2:]
    for j in range(N):
        z = z - H * tanh(f.K[j].T @ y + f.c[j])
        y = y + H * tanh(f.K[j] @ z + f.b[j])
    return torch.cat((z, y))


def ms2(f, y):
    """P3 MS2: y_{j+1} = y_j + h s(K_j y_j + b_j), K_j skew."""
    for j in range(N):
        K = f.W[j] - f.W[j].T
        y = y + H * tanh(K @ y + f.b[j])
    return y


def ms3(f, y):
    """P3 MS3: y += h K_{j,1}^T s(K_{j,1} z_j + b_{j,1}), then z -= h K_{j,2}^T s(K_{j,2} y_{j+1} + b_{j,2})."""
    y, z = y[:2], y[2:]
    for j in range(N):
        K1, b1, K2, b2 = f.K_q[j], f.b_q[j], f.K_p[j], f.b_p[j]
        y = y + H * K1.T @ tanh(K1 @ z + b1)
        z = z - H * K2.T @ tanh(K2 @ y + b2)
    return torch.cat((y, z))


def P3_H1(J):
    def by_hand(f, y):
        """P3 (11): y_{j+1} = y_j + h J K_j^T tanh(K_j y_j + b_j)."""
        for j in range(N):
            y = y + H * J @ f.K[j].T @ tanh(f.K[j] @ y + f.b[j])
        return y

    return by_hand


# P3 writes [0 I; -I 0]; the authors' code realises [0 -I; I 0], which is what the library fixes (papers.md P2.5, 5)
J1 = torch.tensor([[0.0, 0, -1, 0], [0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, 0]]).double()
J2 = torch.tensor([[0.0, 1, 1, 1], [-1, 0, 1, 1], [-1, -1, 0, 1], [-1, -1, -1, 0]]).double()


# ---- P2, P4 ----------------------------------------------------------------------------------------------------


def h2(X):
    def by_hand(f, y):
        """P2: p_{j+1} = p_j - h X^T K_q^T s(K_q q_j + b_q), q_{j+1} = q_j + h X K_p^T s(K_p p_{j+1} + b_p)."""
        p, q = y[:2], y[2:]
        for j in range(N):
            p = p - H * X.T @ f.K_q[j].T @ tanh(f.K_q[j] @ q + f.b_q[j])
            q = q + H * X @ f.K_p[j].T @ tanh(f.K_p[j] @ p + f.b_p[j])
        return torch.cat((p, q))

    return by_hand


def h2_as_semi_implicit_euler(f, y):
    """The same as P2 prints it: [p; q]_{j+1} = [p; q]_j + h J K_j^T s(K_j [p_{j+1}; q_j] + b_j), solved by sweeping."""
    for j in range(N):
        K = torch.block_diag(f.K_p[j], f.K_q[j])
        b = torch.cat((f.b_p[j], f.b_q[j]))
        after = y
        for _ in range(3):  # p_{j+1} needs q_j alone, so the second sweep is exact
            after = y + H * J1 @ K.T @ tanh(K @ torch.cat((after[:2], y[2:])) + b)
        y = after
    return y


def midpoint(f, y):
    """P4: Y_1 = Y_0 + h s((K_0 - K_0^T) Y_0 + b_0), Y_{j+1} = Y_{j-1} + 2h s((K_j - K_j^T) Y_j + b_j)."""
    before, y = y, y + H * tanh((f.W[0] - f.W[0].T) @ y + f.b[0])
    for j in range(1, N):
        before, y = y, before + 2 * H * tanh((f.W[j] - f.W[j].T) @ y + f.b[j])
    return y


def leapfrog_P4(start):
    def by_hand(f, y):
        """P4: Y_{j+1} = 2 Y_j - Y_{j-1} - h^2 K_j^T s(K_j Y_j + b_j); Y_1 = Y_0 - start h^2 K_0^T s(K_0 Y_0 + b_0)."""

        def force(j, y):
            K, b = f.force.K[j], f.force.b[j]
            return K.T @ tanh(K @ y + b)

        before, y = y, y - start * H * H * force(0, y)
        for j in range(1, N):
            before, y = y, 2 * y - before - H * H * force(j, y)
        return y

    return by_hand


X = torch.tensor([[1.2, 0.7], [-0.3, 0.6]], dtype=torch.float32)

CASES = {
    "resnet": (lambda: make("resnet", scalar_bias=True), resnet),
    "antisymmetric": (lambda: make("antisymmetric"), antisymmetric(0.0)),
    "antisymmetric-gamma": (lambda: make("antisymmetric", gamma=0.2), antisymmetric(0.2)),
    "verlet": (lambda: make("verlet"), verlet),
    "leapfrog-P1": (lambda: make("leapfrog", force="semidefinite", start="rest"), leapfrog_P1),
    "ms1": (lambda: make("ms1"), ms1),
    "ms2": (lambda: make("ms2"), ms2),
    "ms3": (lambda: make("ms3"), ms3),
    "h1-J1": (lambda: make("h1"), P3_H1(J1)),
    "h1-J2": (lambda: make("h1", J="full"), P3_H1(J2)),
    "h2": (lambda: make("h2"), h2(torch.eye(2).double())),
    "h2-X": (lambda: make("h2", X=X), h2(X.double())),
    "h2-printed": (lambda: make("h2"), h2_as_semi_implicit_euler),
    "midpoint": (lambda: make("midpoint"), midpoint),
    "leapfrog-P4-rest": (lambda: make("leapfrog", start="rest"), leapfrog_P4(1.0)),
    "leapfrog-P4-half": (lambda: make("leapfrog"), leapfrog_P4(0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_zoo_equals_the_paper(case):
    build, by_hand = CASES[case]
    flow = build()
    agree(flow, by_hand, columns(flow))


def test_every_model_of_the_zoo_is_compared():
    assert {case.split("-")[0] for case in CASES} == set(zoo.MODELS)


@pytest.mark.parametrize(
    "build, wrong",
    [
        ("verlet", ms3),  # another network
        ("h2", h2(-torch.eye(2).double())),  # the sign of J
        ("h1-J2", P3_H1(J1)),
        ("leapfrog-P4-half", leapfrog_P4(1.0)),
        ("antisymmetric-gamma", antisymmetric(0.1)),
    ],
)
def test_the_comparison_notices_a_wrong_update(build, wrong):
    flow = CASES[build][0]()
    with pytest.raises((AssertionError, AttributeError)):
        agree(flow, wrong, columns(flow))


def test_the_order_of_the_halves_matters():
    def q_first(f, y):
        p, q = y[:2], y[2:]
        for j in range(N):
            q = q + H * f.K_p[j].T @ tanh(f.K_p[j] @ p + f.b_p[j])
            p = p - H * f.K_q[j].T @ tanh(f.K_q[j] @ q + f.b_q[j])
        return torch.cat((p, q))

    flow = make("h2")
    with pytest.raises(AssertionError):
        agree(flow, q_first, columns(flow))


# ---- images ----------------------------------------------------------------------------------------------------

SHAPE = (5, 4)


def K_(weight, y):
    """K y for one image, by the definition: a sum over the stencil of shifted images."""
    pad = weight.shape[-1] // 2
    padded = F.pad(y, (pad,) * 4)
    out = torch.zeros(weight.shape[0], *y.shape[1:], dtype=y.dtype)
    for a in range(weight.shape[2]):
        for b in range(weight.shape[3]):
            out += torch.einsum("oi,ihw->ohw", weight[:, :, a, b], padded[:, a : a + y.shape[1], b : b + y.shape[2]])
    return out


def KT(weight, z):
    """K^T z: the gradient of <K y, z>, since K is linear."""
    with torch.enable_grad():
        y = torch.zeros(weight.shape[1], *z.shape[1:], dtype=z.dtype, requires_grad=True)
        return torch.autograd.grad((K_(weight.detach(), y) * z).sum(), y)[0]


def pixels(b):
    return b[:, None, None]


def conv_resnet(f, y):
    for j in range(N):
        y = y + H * tanh(K_(f.K[j], y) + pixels(f.b[j]))
    return y


def conv_ms1(f, y):
    z, y = y[:2], y[2:]
    for j in range(N):
        z = z - H * tanh(KT(f.K[j], y) + pixels(f.c[j]))
        y = y + H * tanh(K_(f.K[j], z) + pixels(f.b[j]))
    return torch.cat((z, y))


def conv_ms2(f, y):
    for j in range(N):
        y = y + H * tanh(K_(f.W[j], y) - KT(f.W[j], y) + pixels(f.b[j]))
    return y


def conv_antisymmetric(f, y):
    for j in range(N):
        y = y + H * tanh(0.5 * (K_(f.W[j], y) - KT(f.W[j], y) - 0.2 * y) + f.b[j])
    return y


def conv_verlet(f, y):
    z, y = y[:2], y[2:]
    for j in range(N):
        z = z - H * tanh(KT(f.K[j], y) + f.b[j])
        y = y + H * tanh(K_(f.K[j], z) + f.b[j])
    return torch.cat((z, y))


def conv_ms3(f, y):
    y, z = y[:2], y[2:]
    for j in range(N):
        y = y + H * KT(f.K_q[j], tanh(K_(f.K_q[j], z) + pixels(f.b_q[j])))
        z = z - H * KT(f.K_p[j], tanh(K_(f.K_p[j], y) + pixels(f.b_p[j])))
    return torch.cat((y, z))


def conv_h1(f, y):
    for j in range(N):
        y = y + H * torch.einsum("ij,jhw->ihw", J2, KT(f.K[j], tanh(K_(f.K[j], y) + pixels(f.b[j]))))
    return y


def conv_h2(f, y):
    p, q = y[:2], y[2:]
    for j in range(N):
        force = KT(f.K_q[j], tanh(K_(f.K_q[j], q) + pixels(f.b_q[j])))
        p = p - H * torch.einsum("ji,jhw->ihw", X.double(), force)
        force = KT(f.K_p[j], tanh(K_(f.K_p[j], p) + pixels(f.b_p[j])))
        q = q + H * torch.einsum("ij,jhw->ihw", X.double(), force)
    return torch.cat((p, q))


def conv_midpoint(f, y):
    before, y = y, y + H * tanh(K_(f.W[0], y) - KT(f.W[0], y) + pixels(f.b[0]))
    for j in range(1, N):
        before, y = y, before + 2 * H * tanh(K_(f.W[j], y) - KT(f.W[j], y) + pixels(f.b[j]))
    return y


def conv_leapfrog(f, y):
    before = y
    for j in range(N):
        K, b = f.force.K[j], pixels(f.force.b[j])
        before, y = y, 2 * y - before - (0.5 if j == 0 else 1) * H * H * KT(K, tanh(K_(K, y) + b))
    return y


CONV = {
    "resnet": ({}, conv_resnet),
    "ms1": ({}, conv_ms1),
    "ms2": ({}, conv_ms2),
    "antisymmetric": ({"gamma": 0.2}, conv_antisymmetric),
    "verlet": ({}, conv_verlet),
    "ms3": ({}, conv_ms3),
    "h1": ({"J": "full"}, conv_h1),
    "h2": ({"X": X}, conv_h2),
    "midpoint": ({}, conv_midpoint),
    "leapfrog": ({}, conv_leapfrog),
}


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_zoo_on_images_equals_the_paper_with_convolutions(name, kernel):
    more, by_hand = CONV[name]
    flow = make(name, operator=lv.Conv(kernel), **more)
    with torch.no_grad():
        for w in flow.parameters():  # sums over 9 more terms: keep the growth of the dense case
            w /= kernel
    agree(flow, by_hand, columns(flow, 2, SHAPE))


# ---- parameters per layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, stored, paper",
    [
        ("ms1", 8, 8),  # K0 2 x 2, b1 and b2
        ("ms2", 20, 10),  # we store all of W; P3 counts the degrees of freedom of W - W^T, 6, and b
        ("ms3", 12, 12),
        ("h1", 20, 20),
        ("h2", 12, 12),
        ("antisymmetric", 17, 7),  # W and a scalar b; (n^2 - n)/2 + 1 degrees of freedom (papers.md P1.1)
        ("verlet", 5, 5),  # K 2 x 2 and a scalar b
        ("resnet", 20, None),
        ("midpoint", 20, None),
        ("leapfrog", 20, None),
    ],
)
def test_parameters_per_layer_at_four_features(name, stored, paper):
    flow = make(name)
    assert sum(p.numel() for p in flow.parameters()) == N * stored
    if paper is not None:
        # degrees of freedom: the rank of theta as a function of the raw parameters
        raw = dict(flow.field.named_parameters())

        def theta(values):
            return torch.cat([w[0].flatten() for w in torch.func.functional_call(_Theta(flow.field), values, ())])

        blocks = torch.func.jacrev(theta)({f"field.{k}": v.detach() for k, v in raw.items()})
        A = torch.cat([b.flatten(1) for b in blocks.values()], 1)
        assert int(torch.linalg.matrix_rank(A)) == paper


class _Theta(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self):
        return self.field.theta()


def test_scalar_bias_resnet_has_the_papers_count():
    assert sum(p.numel() for p in make("resnet", scalar_bias=True).parameters()) == N * (4 * 4 + 1)


def test_pixelwise_network_of_P2_on_mnist_has_the_published_counts():
    """conv 80; per layer MS1 24 and H1 72; head 62,730 (papers.md P2.4)."""
    one = lv.zoo.Images(kernel=1, lift=3, pool=1)
    for name, per_layer in (("ms1", 24), ("h1", 72)):
        net = lv.classifier(name, (1, 28, 28), 10, 8, 4, 1.6, conv=one)
        assert sum(p.numel() for p in net.lift.parameters()) == 80
        assert sum(p.numel() for p in net.body.parameters()) == 4 * per_layer
        assert sum(p.numel() for p in net.head.parameters()) == 62_730


@pytest.mark.parametrize("name", lv.zoo.MODELS)
def test_the_help_explains_every_argument(name):
    text = inspect.getdoc(lv.zoo.MODELS[name])
    arguments = text.partition("\nArgs:\n")[2].partition("\nExamples:\n")[0]
    found = re.findall(r"^    (\w+(?:, \w+)*):", arguments, re.M)
    assert found == list(inspect.signature(lv.zoo.MODELS[name]).parameters)
    assert text.count("\nExamples:\n") == 1 and ">>>" in text.partition("\nExamples:\n")[2]
