"""Every example in a docstring runs, and every public name has a docstring."""

import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import warnings

import pytest
import torch
from torch import nn

import liouville as lv

NEEDING = ("liouville.lightning", "liouville.processes.fabric")  # an extra that tests may lack
ABSENT = () if importlib.util.find_spec("lightning") else NEEDING
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(lv.__path__, "liouville.")
    if not m.name.endswith("__main__") and not m.name.startswith(ABSENT)
)


def module(name):
    return importlib.import_module(name)


def documented(name, value):
    """Whether a public function, class, or public method defined here explains itself; overrides inherit theirs."""
    missing = [] if inspect.getdoc(value) else [name]
    if inspect.isclass(value):
        for key, member in vars(value).items():
            plain = isinstance(member, property | staticmethod | classmethod) or inspect.isfunction(member)
            if plain and not key.startswith("_") and not inspect.getdoc(getattr(value, key)):
                missing.append(f"{name}.{key}")
    return missing


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed, _ = doctest.testmod(module(name), extraglobs={"torch": torch, "nn": nn, "lv": lv})
    assert failed == 0


def test_there_are_examples_and_a_wrong_one_is_noticed():
    examples = [e for name in MODULES for t in doctest.DocTestFinder().find(module(name)) for e in t.examples]
    assert len(examples) > 40

    def wrong():
        """
        >>> 1 + 1
        3
        """

    (test,) = doctest.DocTestFinder().find(wrong, "wrong", globs={})
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_every_public_name_has_a_docstring(name):
    m = module(name)
    missing = [] if m.__doc__ else [name]
    for key in getattr(m, "__all__", []):
        value = getattr(m, key)
        if inspect.isclass(value) or inspect.isfunction(value):
            missing += documented(f"{name}.{key}", value)
    assert not missing


def test_a_missing_docstring_is_noticed():
    class Silent:
        def speak(self):
            pass

    assert documented("Silent", Silent) == ["Silent", "Silent.speak"]
