"""What the law tests measure with, written apart from the library so that the two can disagree."""

import torch

EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def rounding(*scale, terms=1, factor=10.0):
    """factor * eps * terms * the largest magnitude in play (at least 1).

    ``terms`` counts the roundings on the way (features summed over, layers); the factor covers that the magnitudes
    inside a formula exceed the result's, by cancellation, by less than ten.
    """
    largest = max([1.0, *(float(torch.as_tensor(s).detach().abs().max()) for s in scale)])
    return factor * EPS * terms * largest


def near(actual, expected, tolerance):
    """Equal to within an absolute tolerance, entry by entry; NaN is near to nothing."""
    difference = (_double(actual) - _double(expected)).abs().max()
    assert difference <= tolerance, f"measured a difference of {float(difference):.3g}, tolerance {tolerance:.3g}"


def far(actual, expected, distance):
    """Different by more than ``distance``: the negative of a law, where it must fail."""
    difference = (_double(actual) - _double(expected)).abs().max()
    assert difference > distance, f"expected a difference above {distance:.3g}, measured {float(difference):.3g}"


def at(theta, j=0):
    """theta_j."""
    return type(theta)(*(w[j if len(w) > 1 else 0] for w in theta))


def flat(state):
    return torch.cat([s.reshape(-1) for s in state])


def jacobian(f, state):
    """d f(state) / d state, numerator layout, by one backward pass per output; f maps tuples to tuples."""
    sizes, shapes = [s.numel() for s in state], [s.shape for s in state]

    def g(x):
        parts = [part.reshape(shape) for part, shape in zip(x.split(sizes), shapes, strict=True)]
        return flat(f(tuple(parts)))

    return torch.autograd.functional.jacobian(g, flat(state).detach())


def first_state(scheme, field, y, h=0.1):
    with torch.no_grad():
        return scheme.init(field, y, at(field.theta()), h)


def step_jacobian(scheme, field, state, h, j=0):
    """A of one step, for one sample, in the order of a state whose parts lie side by side along the features."""
    theta_j = at(field.theta(), j)
    A = jacobian(lambda s: scheme.step(field, s, theta_j, h), state)
    places = torch.arange(len(A)).split([s.numel() for s in state])
    order = torch.cat([k.reshape(s.shape) for k, s in zip(places, state, strict=True)], field.feature_axis).flatten()
    return A[order][:, order]


def norm(A):
    return float(torch.linalg.matrix_norm(A.detach(), ord=2))


def reference(velocity, state, T, steps=1024):
    """RK4 on a function of one flat state: error about (T / steps)^4."""
    h = T / steps
    for _ in range(steps):
        k1 = velocity(state)
        k2 = velocity(state + h / 2 * k1)
        k3 = velocity(state + h / 2 * k2)
        k4 = velocity(state + h * k3)
        state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def slope(errors):
    """log2 of the last ratio: the order, where every error is at half the step of the one before."""
    return float(torch.log2(torch.tensor(errors[-2] / errors[-1])))


def _double(x):
    return torch.as_tensor(x, dtype=torch.float64).detach()


def bytes_kept(flow, y):
    """What autograd keeps of a run beside the weights, storage by storage."""
    storages, weights = {}, {p.untyped_storage().data_ptr() for p in flow.parameters()}

    def pack(x):
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = flow(y.clone().requires_grad_())
    assert out.requires_grad
    return sum(s.nbytes() for pointer, s in storages.items() if pointer not in weights)
