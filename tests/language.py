"""The few hard rules of our English, checked over pages and sources: ``python tests/language.py PATH ...``.

Pages (``.md``), outside of code, and sources (``.py``), in docstrings, comments and messages:

- "behind" is a place: time and depth say "after". Allowed: hidden or left behind, and comparisons (with "ahead" in the
  same sentence, or "is behind" at the end of a clause).
- "only" stands before what it limits, not "alone" after it. Allowed: left alone, not alone, runs alone.

Pages: no sentence of running text has more than 30 words. A piece of code is one word; numbers, symbols and formulas
are none. Exempt are headings, tables, code blocks, and the text that a command writes between ``<!-- name -->`` and
``<!-- end name -->``.

Sources: the help of an option does not begin with a preposition; the help of a flag, and the short help of a command,
begin with a verb.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOST_WORDS = 30
GENERATED = ("docs/reproduce.md", "docs/reproduce-quick.md", "docs/reproduce/")

_PREPOSITION = re.compile(r"(about|after|at|by|during|for|from|in|of|on|over|to|under|with|without)\b", re.IGNORECASE)
_VERB = re.compile(  # the verbs that begin a help text: add yours
    r"(add|apply|attack|average|certify|check|copy|discard|draw|forget|hold|let|leave|list|make|measure|overwrite|penalise|"
    r"print|put|record|repeat|replace|rescale|run|save|say|share|shorten|show|start|stop|train|use|write)\b",
    re.IGNORECASE,
)
# The group is what allows the word that follows it.
_BEHIND = re.compile(r"((?:left|hidden) |is (?=behind[.,;)])|[\"'`])?\bbehind\b", re.IGNORECASE)
_ALONE = re.compile(r"((?:left|leaves?|let|not|runs?) (?:\w+ )?|[\"'`])?\balone\b(?!:)", re.IGNORECASE)
_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|i\.i\.d|cf|vs|al|Eq|Eqs|Fig|Sec)\.$")
_END = re.compile(r"[.!?][\"')\]*]*(?=\s|$)")
_WORD = re.compile(r"[A-Za-z]{2}|^[aA]\b")
_FORMULA = re.compile(r"[=^_<>|+]")


class Violation(NamedTuple):
    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


class Block(NamedTuple):
    """A paragraph, an item of a list, a heading or a line of a table, without its code."""

    line: int
    text: str
    running: bool


def blocks(page: str) -> list[Block]:
    page = re.sub(r"<!-- (?!end )([^>]*?) -->.*?<!-- end \1 -->", _lines_only, page, flags=re.DOTALL)
    page = re.sub(r"^```.*?^```$", _lines_only, page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"`[^`]+`", lambda code: "code" + "\n" * code[0].count("\n"), page)
    found, held, begun = [], [], 0
    for number, line in enumerate([*page.splitlines(), ""], 1):
        alone = line.startswith(("#", "|"))
        if held and (alone or not line.strip() or re.match(r"\s*(?:[-*]|\d+\.)\s", line)):
            found.append(Block(begun, " ".join(held), True))
            held = []
        if alone:
            found.append(Block(number, line, False))
        elif line.strip() and (held or not line.startswith("    ")):
            begun, held = (begun, held) if held else (number, [])
            held.append(line.strip())
    return found


def _lines_only(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def sentences(text: str) -> Iterator[str]:
    """The sentences of running text. A link counts by its words; a middle dot between links ends a sentence."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for part in re.split(r" · | — ", text):
        begin = 0
        for end in _END.finditer(part):
            if not _ABBREVIATIONS.search(part[: end.start() + 1]):
                yield part[begin : end.end()].strip()
                begin = end.end()
        if part[begin:].strip():
            yield part[begin:].strip()


def words(sentence: str) -> int:
    return sum(bool(_WORD.search(token)) and not _FORMULA.search(token) for token in sentence.split())


def of_wording(path: str, line: int, text: str) -> Iterator[Violation]:
    if any(not found[1] for found in _BEHIND.finditer(text)) and not re.search(r"\bahead\b", text, re.IGNORECASE):
        yield Violation(path, line, '"behind", where "after" is meant', text.strip())
    if any(not found[1] for found in _ALONE.finditer(text)):
        yield Violation(path, line, '"alone", where "only" is meant', text.strip())


def of_page(path: str, page: str) -> Iterator[Violation]:
    for line, text, running in blocks(page):
        for sentence in sentences(text) if running else [text]:
            yield from of_wording(path, line, sentence)
            if running and words(sentence) > MOST_WORDS:
                yield Violation(path, line, f"{words(sentence)} words in a sentence", sentence)


def of_source(path: str, source: str) -> Iterator[Violation]:
    for line, text in sorted(_texts(source)):
        for number, part in enumerate(text.splitlines()):
            if not part.lstrip().startswith((">>>", "...")):
                yield from of_wording(path, line + number, part)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield from _of_help(path, node)


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Comments, and strings with a blank in them: docstrings, help and messages, but no names."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def _of_help(path: str, call: ast.Call) -> Iterator[Violation]:
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    options = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    flag = given.get("is_flag") or given.get("action") == "store_true" or any("/--" in o for o in options)
    for name in ("help", "short_help"):
        text = given.get(name)
        if not isinstance(text, str) or not text:
            continue
        if _PREPOSITION.match(text):
            yield Violation(path, call.lineno, "a help text begins with a preposition", text)
        elif (flag or name == "short_help") and not _VERB.match(text):
            yield Violation(path, call.lineno, "this help text begins with a verb (_VERB of tests/language.py)", text)


def files(path: Path) -> list[Path]:
    if not path.exists():
        raise SystemExit(f"{path} does not exist; name pages, sources or folders of them.")
    found = sorted(p for p in path.rglob("*") if p.suffix in (".md", ".py")) if path.is_dir() else [path]
    return [p for p in found if not any(part in p.as_posix() for part in GENERATED)]


def violations(paths: list[Path]) -> list[Violation]:
    found: list[Violation] = []
    for file in [file for path in paths for file in files(path)]:
        check = of_source if file.suffix == ".py" else of_page
        found += check(file.as_posix(), file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("Name pages, sources or folders of them: python tests/language.py README.md docs")
    seen = violations([Path(argument) for argument in sys.argv[1:]])
    sys.stdout.write("".join(f"{violation}\n" for violation in seen) or "no violation\n")
    sys.exit(bool(seen))
