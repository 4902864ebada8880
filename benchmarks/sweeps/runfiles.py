"""Does a damaged or edited run folder ever end in a wrong answer without a word, exit code 70, or a traceback?

A tiny run is trained once; every case copies it, damages one file, and asks the command for predictions, a certificate,
a training ``--like`` it, or the page of an experiment. Exit codes 0, 1 and 2 are answers; 0 with other predictions is
one only where a note says that the file was changed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sweep

from liouville.cli import run as command

TINY = ("--features", "4", "--layers", "4", "--T", "2", "--epochs", "2", "--batch-size", "50", "-d", "points=200")
POINTS = "0.1,0.2\n-0.5,0.5\n0.9,0.0\n"
EXPERIMENT = "counterexample"
POOL: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 4096, 10**9, 10**12, 2**62, 2**63, 10**40, 0.5, -0.0, 1e-300, 1e308),
    *("", "x", "h2", "Smooth", "adam", "\x1b[2J", "\ud800", "a" * 5000, "../..", "/etc/passwd", "1", "nan", "null"),
    *([], {}, [1], [1, 2, 3], [[1, 2], [3, 4]], ["a", "b"], [None], {"a": 1}, [[[[[[[[[[1]]]]]]]]]], [1] * 1000),
)
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, "9" * 6000)


class Answer(NamedTuple):
    """What the command said."""

    code: int
    out: str
    err: str


def called(*words: object) -> Answer:
    """The command in this process; a traceback ends the case."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@functools.cache
def original() -> tuple[Path, str]:
    """The sound folder, with a run and the records of an experiment, and the sound predictions."""
    folder = Path(tempfile.mkdtemp())
    assert called("train", *TINY, "--no-figures", "--quiet", "--threads", 1, "--out", folder / "run").code == 0
    assert (
        called("reproduce", EXPERIMENT, "--quick", "--jobs", 1, "--no-figures", "--out", folder / "results").code == 0
    )
    (folder / "points.csv").write_text(POINTS)
    return folder, called("predict", folder / "run", folder / "points.csv", "--probabilities").out


def case(draw: random.Random) -> sweep.Outcome:
    """One damaged file, one question."""
    source, sound = original()
    name = draw.choice(("config.json",) * 6 + ("metrics.json", "history.jsonl", "model.safetensors", "records.jsonl"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "all"
        shutil.copytree(source, folder)
        file = next(folder.rglob(name))
        words = damage(draw, file)
        question, answer = ask(draw, folder, name)
    what = f"{name}: {words}; {question} -> {answer.code} {answer.err.strip()[:300]}"
    lines = [
        line for line in answer.err.splitlines() if not line.startswith(("liouville: note:", "liouville: warning:"))
    ]
    if answer.code not in (0, 1, 2) or "Traceback" in answer.err or len(lines) > (answer.code > 0):
        return sweep.Outcome("defect", what)
    if answer.code == 0 and question == "predict" and answer.out != sound and "was changed" not in answer.err:
        return sweep.Outcome("wrong", what)
    return sweep.Outcome("right" if answer.code == 0 else "refused", what)


def ask(draw: random.Random, folder: Path, name: str) -> tuple[str, Answer]:
    """What is asked of the folder; records are asked for their page."""
    run, points = folder / "run", folder / "points.csv"
    if name == "records.jsonl":
        return "reproduce", called(
            "reproduce", EXPERIMENT, "--render", "--quick", "--no-figures", "--out", folder / "results"
        )
    question = draw.choice(("predict", "predict", "check", "check", "like", "force", "history"))
    if question == "predict":
        return question, called("predict", run, points, "--probabilities")
    if question == "check":
        return question, called("check", run)
    if question == "history":
        from liouville.runs import Run

        try:
            Run.open(run).history()
        except (ValueError, OSError) as error:
            return question, Answer(2, "", str(error))
        return question, Answer(0, "", "")
    out = run if question == "force" else folder / "new"
    short = ("--epochs", 1, "-d", "points=40", "--layers", 2, "--features", 4, "--no-figures", "--quiet")
    start = ("--like", run) if question == "like" else ("--force",)
    return question, called("train", *start, *short, "--out", out)


def damage(draw: random.Random, file: Path) -> str:
    """Damage a file in one of several ways; the words say how."""
    kinds: list[Callable[[random.Random, Path], str]] = [bytes_flipped, cut, replaced]
    if file.suffix != ".safetensors":
        kinds += [value_swapped] * 6 + [
            raw_value,
            key_dropped,
            key_added,
            fields_exchanged,
            key_twice,
            decoded_otherwise,
        ]
    return draw.choice(kinds)(draw, file)


def bytes_flipped(draw: random.Random, file: Path) -> str:
    content, places = bytearray(file.read_bytes()), []
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        place = draw.randrange(len(content)) if draw.random() < 0.7 else draw.randrange(min(len(content), 400))
        content[place] ^= 1 << draw.randrange(8)
        places.append(place)
    file.write_bytes(content)
    return f"bytes {places} flipped"


def cut(draw: random.Random, file: Path) -> str:
    content = file.read_bytes()
    end = draw.randrange(len(content))
    file.write_bytes(content[:end] + draw.choice((b"", b"\n", content[end : end + 1] * 3)))
    return f"cut at {end}"


def replaced(draw: random.Random, file: Path) -> str:
    how = draw.choice(("empty", "folder", "dangling", "loop", "zeros", "bom", "utf-16", "gone"))
    content = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "dangling":
        file.symlink_to("nowhere")
    elif how == "loop":
        file.symlink_to(file.name)
    elif how != "gone":
        new = {"empty": b"", "zeros": bytes(len(content)), "bom": b"\xef\xbb\xbf" + content}
        file.write_bytes(new.get(how) or (b"" if how == "empty" else content.decode("latin-1").encode("utf-16")))
    return how


def parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all parts of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(min(len(value), 5)) if isinstance(value, list) else ()
    return [path] * bool(path) + [p for key in keys for p in parts(value[key], (*path, key))]


def holder(value: Any, path: tuple[Any, ...]) -> Any:
    """What contains the part at a path."""
    return functools.reduce(lambda v, key: v[key], path[:-1], value)


def edited(draw: random.Random, file: Path, edit: Callable[[Any, list[tuple[Any, ...]]], str]) -> str:
    """Edit the JSON value in a file, or in one of its lines."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    k = draw.randrange(len(lines))
    value = json.loads(lines[k])
    words = edit(value, parts(value))
    lines[k] = json.dumps(value)
    for raw in RAW:
        lines[k] = lines[k].replace(json.dumps(f"RAW{RAW.index(raw)}"), raw)
    file.write_text("\n".join(lines) + "\n")
    return words


def value_swapped(draw: random.Random, file: Path) -> str:
    def edit(value: Any, paths: list[tuple[Any, ...]]) -> str:
        path, new = draw.choice(paths), copy.deepcopy(draw.choice(POOL))
        holder(value, path)[path[-1]] = new
        return f"{path} = {new!r:.60}"

    return edited(draw, file, edit)


def raw_value(draw: random.Random, file: Path) -> str:
    def edit(value: Any, paths: list[tuple[Any, ...]]) -> str:
        path, k = draw.choice(paths), draw.randrange(len(RAW))
        holder(value, path)[path[-1]] = f"RAW{k}"
        return f"{path} = {RAW[k]:.20}"

    return edited(draw, file, edit)


def key_dropped(draw: random.Random, file: Path) -> str:
    def edit(value: Any, paths: list[tuple[Any, ...]]) -> str:
        path = draw.choice(paths)
        del holder(value, path)[path[-1]]
        return f"{path} dropped"

    return edited(draw, file, edit)


def key_added(draw: random.Random, file: Path) -> str:
    def edit(value: Any, paths: list[tuple[Any, ...]]) -> str:
        path, new = draw.choice(paths), draw.choice(POOL)
        inside = holder(value, path)
        if isinstance(inside, dict):
            inside[draw.choice(("extra", "", "T", "seed", "type", "__class__"))] = new
        else:
            inside.append(new)
        return f"{new!r:.60} added beside {path}"

    return edited(draw, file, edit)


def fields_exchanged(draw: random.Random, file: Path) -> str:
    def edit(value: Any, paths: list[tuple[Any, ...]]) -> str:
        a, b = draw.choice(paths), draw.choice(paths)
        if a[: len(b)] == b or b[: len(a)] == a:
            return "nothing exchanged"
        here, there = holder(value, a), holder(value, b)
        here[a[-1]], there[b[-1]] = there[b[-1]], here[a[-1]]
        return f"{a} and {b} exchanged"

    return edited(draw, file, edit)


def key_twice(draw: random.Random, file: Path) -> str:
    text = file.read_text()
    places = [i for i, c in enumerate(text) if c == "{"]
    place = draw.choice(places)
    key = draw.choice(("format", "plan", "data", "classes", "T", "loss", "values", "new"))
    file.write_text(f'{text[: place + 1]}"{key}": 1, "{key}": 2, {text[place + 1 :]}')
    return f"{key} twice at {place}"


def decoded_otherwise(draw: random.Random, file: Path) -> str:
    text, encoding = file.read_text(), draw.choice(("utf-16", "utf-32", "utf-8-sig", "cp500"))
    file.write_bytes(text.encode(encoding))
    return encoding


if __name__ == "__main__":
    raise SystemExit(sweep.run("damaged run folders", case, 5000))
