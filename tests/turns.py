"""Long lists of cases: `make test` runs some of them in turn, `make test-slow` the others."""

import itertools

import pytest


def one_in(every, *axes):
    """The product of the axes, a parameter set each: every ``every``-th is quick, the others are marked slow.

    An axis is a dict from a name to a value or a tuple of values, or a list of them, which are named by their ``repr``.
    Let ``every`` have no divisor in common with the length of the last axis, or the quick cases share its value.
    """
    named = [axis if isinstance(axis, dict) else {_name(value): value for value in axis} for axis in axes]
    return [
        pytest.param(
            *itertools.chain.from_iterable(value if isinstance(value, tuple) else (value,) for _, value in case),
            id="-".join(name for name, _ in case),
            marks=pytest.mark.slow if number % every else (),
        )
        for number, case in enumerate(itertools.product(*(axis.items() for axis in named)))
    ]


def _name(value):
    parts = value if isinstance(value, tuple) else (value,)
    return "-".join(part if isinstance(part, str) else repr(part) for part in parts)
