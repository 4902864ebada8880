"""``--help`` is short and ends with examples, ``--help-all`` is whole; the tab key knows the names."""

import os
import re
import subprocess
import sys

import click
import pytest

from liouville.activations import ACTIVATIONS
from liouville.cli import completion
from liouville.cli import liouville as group
from liouville.data import SOURCES
from liouville.experiments import EXPERIMENTS
from liouville.runs import PRESETS
from liouville.schemes import SCHEMES
from liouville.verify import STATEMENTS
from liouville.zoo import MODELS

COMMANDS = list(group.commands)


def _shown(text):
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE))


def _all(command):
    names = [name for p in command.params for name in p.opts if name != getattr(p, "former", None)]
    return {name for name in names if name.startswith("--")}


@pytest.mark.parametrize("name", COMMANDS)
def test_short_and_whole(liouville, name):
    short, whole = liouville(name, "--help"), liouville(name, "--help-all")
    assert (short.code, whole.code) == (0, 0)
    assert _shown(whole.out) - {"--help"} == _all(group.commands[name])
    assert {"--help-all"} < _shown(short.out) | {""} and _shown(short.out) <= _shown(whole.out)
    hidden = len(_shown(whole.out) - _shown(short.out))
    assert f"the other {hidden} options" in short.out if hidden else "these are all options" in short.out
    assert len(_shown(short.out)) <= 20 and short.out.count("\n") < 75
    for text in (short.out, whole.out):
        *_, examples, codes, end = re.split(r"\n\n", text + "\n")
        assert examples.startswith("Examples:\n  liouville ") and codes.startswith("Exit codes: 0 done; ") and not end
        assert max(map(len, text.splitlines())) <= 80


VERBS = re.findall(
    r"\w+",
    """
    Add Also Average Begin Choose Compute Continue Copy Damp Discard Draw Drop Give Hold Keep Leave Let Make
    Measure Meet Penalise Predict Print Put Read Record Refuse Replace Rescale Run Say Seed Send Set Share Shift
    Shorten Show Shrink Spread Start State Stop Take Train Turn Use Wait Write
    """,
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_begins_with_what_the_option_does(name):
    for parameter in group.commands[name].params:
        if isinstance(parameter, click.Option):
            first, second = re.findall(r"\w+", parameter.help)[:2]
            assert first in VERBS and second != "of", f"begin with a verb, or add yours: {name}, {parameter.help}"


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_examples_parse(name, monkeypatch):
    command = group if name is None else group.commands[name]
    assert command.examples
    for line, what in command.examples:
        first, sub, *words = line.split(" > ")[0].split()
        assert first == "liouville" and what and (name is None or sub == name)
        click.Command.make_context(group.commands[sub], sub, words)


def test_a_wrong_option_of_the_whole_help_is_still_refused(liouville):
    result = liouville("train", "--lerning-rate", 1)
    assert result.code == 2 and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("read", "known"),
    [
        (completion.data, SOURCES),
        (completion.models, MODELS),
        (completion.schemes, SCHEMES),
        (completion.presets, PRESETS),
        (completion.activations, ACTIVATIONS),
        (completion.experiments, EXPERIMENTS),
    ],
)
def test_the_names_in_the_source_are_those_of_the_tables(read, known):
    assert read() == list(known)


def test_statements_are_found():
    assert set(completion.statements()) == set(STATEMENTS)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("liouville tr", {"train"}),
        ("liouville train --data sw", {"swiss-roll"}),
        ("liouville train --model ms", {"ms1", "ms2", "ms3"}),
        ("liouville train --scheme Ver", {"Verlet"}),
        ("liouville train --engine re", {"reversible"}),
        ("liouville train --schedule co", {"cosine", "constant"}),
        ("liouville list sch", {"schemes"}),
        ("liouville reproduce count", {"counterexample"}),
        ("liouville train --print", {"--print-config"}),
    ],
)
def test_the_tab_key(words, found):
    """As bash asks; no command may import torch for it."""
    words = words.split()
    asked = {"_LIOUVILLE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "import sys, liouville.__main__ as m\ntry: m._run(None)\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
    assert done.stderr == "" and {line.split(",")[1] for line in done.stdout.splitlines()} == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_s_part(shell):
    if shell == "bash" and subprocess.run(["bash", "-c", "[ $BASH_VERSINFO -ge 5 ]"]).returncode:
        pytest.skip("bash is too old")
    done = subprocess.run(
        [sys.executable, "-m", "liouville"],
        env=os.environ | {"_LIOUVILLE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "_LIOUVILLE_COMPLETE" in done.stdout
