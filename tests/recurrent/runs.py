"""The plain loop over time, written apart from the library: what every engine and every calling form must equal."""

import torch

import samples

FIELDS_AND_SCHEMES = [(f, s) for f in samples.DRIVEN for s in samples.SCHEMES if s not in ("Momentum", "Coupled")]


def fits(field, scheme):
    try:
        samples.SCHEMES[scheme].check(samples.driven(field))
    except ValueError:
        return False
    return True


PAIRS = [(f, s) for f, s in FIELDS_AND_SCHEMES if fits(f, s)]


def loop(cell, u, state, tau=None):
    """State_T and State_1 ... State_T: scheme.step with b + W u_t in place of b, and tau_t h in place of h."""
    field, theta = cell.field, cell.driven.theta()
    own = type(field.theta())(*(w[0] for w in theta[: len(field.theta())]))
    parts, states = state.split(cell.sizes, -1), []
    for t, u_t in enumerate(u):
        forced = {n: getattr(own, n) + u_t @ getattr(theta, f"W_{n}")[0].mT for names in field.biases for n in names}
        step = field if tau is None else _Slower(field, tau[t])
        parts = cell.scheme.step(step, parts, own._replace(**forced), cell.h)
        states.append(torch.cat(parts, -1))
    return states[-1], torch.stack(states)


class _Slower:
    """tau f, for any scheme."""

    def __init__(self, field, tau):
        self.field, self.tau = field, tau

    def __getattr__(self, name):
        return getattr(self.field, name)

    def __call__(self, y, theta):
        return self.tau * self.field(y, theta)

    def mean_velocity(self, y, z, theta):
        return self.tau * self.field.mean_velocity(y, z, theta)

    def p_dot(self, q, theta):
        return self.tau * self.field.p_dot(q, theta)

    def q_dot(self, p, theta):
        return self.tau * self.field.q_dot(p, theta)
