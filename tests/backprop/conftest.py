"""The engines written in Python, by themselves: where a native kernel was built, `Auto` would take it instead."""

import pytest


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    monkeypatch.setattr("liouville.kernels.auto.is_built", lambda: False)
