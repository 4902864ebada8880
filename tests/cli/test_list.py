"""`liouville list`: every name that `train` knows, one line each."""

import io

import pytest

from liouville.activations import ACTIVATIONS
from liouville.cli.output import table
from liouville.data import SOURCES
from liouville.experiments import EXPERIMENTS
from liouville.kernels import ENGINES
from liouville.runs import PRESETS
from liouville.schemes import SCHEMES
from liouville.zoo import MODELS

KNOWN = {
    "models": MODELS,
    "data": SOURCES,
    "schemes": SCHEMES,
    "presets": PRESETS,
    "engines": list(ENGINES),
    "activations": ACTIVATIONS,
    "experiments": EXPERIMENTS,
}


def first_words(lines):
    return [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("  (")]


@pytest.mark.parametrize("kind", KNOWN)
def test_one_kind_lists_every_name_with_what_it_is(liouville, kind):
    result = liouville("list", kind)
    title, *lines = result.out.splitlines()
    assert (result.code, title) == (0, kind)
    assert first_words(lines) == list(KNOWN[kind])
    assert all(len(line.split()) > 1 for line in lines if line)


def test_without_a_kind_everything_is_listed(liouville):
    lines = liouville("list").out.splitlines()
    assert first_words(lines) == [name for names in KNOWN.values() for name in names]


def test_data_sets_show_their_options_and_models_theirs(liouville):
    assert "version=hdnn points=none noise=0.01 test=fresh" in liouville("list", "data").out
    assert "--gamma=0.0" in liouville("list", "models").out and "--J=canonical" in liouville("list", "models").out


def test_an_unknown_kind_suggests(liouville):
    result = liouville("list", "model")
    assert result.code == 2 and result.err == (
        "liouville: error: unknown kind 'model'; did you mean 'models'? Known kinds: models, data, schemes, presets, "
        "engines, activations, experiments.\n"
    )


def test_on_a_terminal_it_is_a_table(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    table("presets", ("preset", "what it is"), [("hdnn", "alternation [bold]")], "a note")
    shown = screen.getvalue()
    assert all(word in shown for word in ("presets", "preset", "what it is", "hdnn", "alternation [bold]", "a note"))
