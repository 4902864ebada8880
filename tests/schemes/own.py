"""Schemes of a user's own, for tests."""

import liouville as lv


class Heun(lv.Scheme):
    """It states no more than it must."""

    order = 2

    def step(self, field, state, theta_j, h):
        (y,) = state
        k = field(y, theta_j)
        return (y + h / 2 * (k + field(y + h * k, theta_j)),)
