"""``tests/language.py`` finds planted bad sentences, and nothing in good ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from language import MOST_WORDS, of_page, of_source, violations

LONG = "A sentence " + "goes " * (MOST_WORDS - 2) + "on."
assert len(LONG.split()) == MOST_WORDS + 1


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ("The state behind the last layer.", "behind"),
        ("It is behind the last layer.", "behind"),
        ("| a table | the layers behind j |", "behind"),
        ("# The layers behind", "behind"),
        ("It depends on the weights alone.", "alone"),
        ("It depends on the weights\nalone.", "alone"),
        (LONG, "31 words"),
        ("- An item. " + LONG, "31 words"),
        ("Short. " + LONG.replace("goes on", "`goes(1, 2)`\n[on](page.md)"), "31 words"),
        ("<!-- table -->\nwritten\n<!-- end table -->\n\n" + LONG, "31 words"),
    ],
)
def test_a_bad_sentence_of_a_page_is_found(page: str, rule: str) -> None:
    (found,) = of_page("page.md", page)
    assert rule in found.rule


@pytest.mark.parametrize(
    "page",
    [
        LONG.replace("goes ", "", 1),
        "| " + LONG + " |",
        "# " + LONG.rstrip("."),
        "```\nbehind " + LONG + "\n```",
        "    behind " + LONG,
        "<!-- table -->\nbehind " + LONG + "\n<!-- end table -->",
        LONG.replace("goes ", "", 20) + " With y' = J K^T f(K y + b), h ||J|| < 2, |x| > 1 and -1 <= z.",
        "An item, e.g. one. " + LONG.replace("goes ", "", 1),
        "It is ahead or behind. Leave it alone. They are not alone. The case runs alone.",
        "One process is behind; its files are left behind. The class is hidden behind another.",
        'Write "after" for "behind".',
    ],
)
def test_a_good_page_is_let_through(page: str) -> None:
    assert not list(of_page("page.md", page))


def test_the_line_is_that_of_the_paragraph_below_code_and_generated_text() -> None:
    above = "# Title\n\n```\ncode\n```\n\n<!-- x -->\nbehind\n\nbehind\n<!-- end x -->\n\nA `long\nname`.\n\n"
    assert [found.line for found in of_page("page.md", above + "The layers\nbehind.")] == [16]


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ('def f():\n    """The state.\n\n    It is behind the last layer.\n    """', "behind"),
        ("x = 1  # the layers behind", "behind"),
        ('raise ValueError(f"{x} depends on the weights alone")', "alone"),
        ('@option("--decay", help="Of adamw.")\ndef f(): ...', "preposition"),
        ('@option("--all", is_flag=True, help="Every experiment.")\ndef f(): ...', "verb"),
        ('@option("--a/--no-a", help="One weight for all layers.")\ndef f(): ...', "verb"),
        ('@command(short_help="What is guaranteed.")\ndef f(): ...', "verb"),
    ],
)
def test_a_bad_text_of_a_source_is_found(source: str, rule: str) -> None:
    (found,) = of_source("source.py", source)
    assert rule in found.rule


def test_a_good_source_is_let_through() -> None:
    source = '''"""Ahead or behind. Left alone.

    >>> alone = behind
"""

names = ["behind", "alone"]
alone = 1
text = f"{min(alone)} of them"


@option("--layers", help="Number of layers.")
@option("--quick", is_flag=True, help="Run one small case.")
@command(short_help="Train a network.")
def f(): ...
'''
    assert not list(of_source("source.py", source))


def test_the_script_names_the_place_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Good.\n\nThe layers behind j.\n")
    (tmp_path / "docs" / "reproduce").mkdir(parents=True)
    (tmp_path / "docs" / "reproduce.md").write_text("behind")
    (tmp_path / "docs" / "reproduce" / "notes.md").write_text("behind")
    script = [sys.executable, str(Path(__file__).parent / "language.py")]
    bad = subprocess.run([*script, str(tmp_path)], capture_output=True, text=True)
    assert bad.returncode == 1 and bad.stdout.count("\n") == 1 and "page.md:3: " in bad.stdout
    good = subprocess.run([*script, str(tmp_path / "docs")], capture_output=True, text=True)
    assert good.returncode == 0, good.stdout
    with pytest.raises(SystemExit, match="does not exist"):
        violations([tmp_path / "missing"])
