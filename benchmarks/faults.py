"""What becomes of a training on a full disk, at a signal, with damaged files, two writers, closed streams and the like?

Every fault is put to the real command or to ``runs.train`` in a child, and what is left is read back: nothing torn, the
best weights or a state that goes on to the bits of an undisturbed run, one sentence, the exit code that is documented.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from crash import SMALL, children_of, forked, lives, same, torn_files, waited
from liouville import runs
from liouville.runs import Plan, Run
from liouville.train import Checkpoint
from tables import markdown, plain, write

LONG = SMALL.changed(epochs=400)
WORDS = "--layers 6 --T 2 --batch-size 20 -d points=200 --threads 1 --no-figures --quiet --epochs"
LIMIT = 120.0
STEP = 2.0  # seconds after a step's end in which a signal is answered


class Seen(NamedTuple):
    """How a fault went: well or not, and in words."""

    well: bool
    words: str


FAULTS: dict[str, Callable[[Path], Seen]] = {}


def fault(name: str) -> Callable[[Callable[[Path], Seen]], Callable[[Path], Seen]]:
    """Put a function among the faults."""

    def put(function: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
        FAULTS[name] = function
        return function

    return put


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="faults whose name has this in it")
    parser.add_argument("--page", type=Path, help="write the table into this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, bad = [], 0
    for name, function in FAULTS.items():
        if options.only and options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                seen = function(Path(folder))
            except Exception as error:
                seen = Seen(False, f"{type(error).__name__}: {error}")
        bad += not seen.well
        rows.append((name, "yes" if seen.well else "NO", seen.words))
        print(*rows[-1], sep=" | ", flush=True)
    head = ("fault", "as promised", "what was seen")
    print(plain(head, rows))
    if options.page:
        write(options.page, "faults", markdown(head, rows))
    sys.exit(bool(bad))


def started(*words: str, epochs: int = 100000, **more: object) -> subprocess.Popen[str]:
    """The command, training for ever."""
    line = [sys.executable, "-m", "liouville", "train", *WORDS.split(), str(epochs), *words]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload,no-any-return]


def trains(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the first epoch is written."""
    deadline = time.monotonic() + LIMIT
    while not ((path / "history.jsonl").exists() and (path / "history.jsonl").stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not train: {process.communicate()}")
        time.sleep(0.02)


def goes_on(path: Path, plan: Plan, folder: Path) -> bool:
    """Whether what is left resumes to the bits of an undisturbed run."""
    whole = folder / "whole"
    codes = [waited(forked(lambda p=p: runs.train(plan, out=p, resume=True))) for p in (whole, path)]  # type: ignore[misc]
    return codes == [0, 0] and same(whole, path)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def full(folder: Path, limit: Callable[[], None], where: Path) -> Seen:
    """A disk that fills up with the history: best weights there, lines whole, and with room it goes on."""

    def train() -> None:
        limit()
        try:
            runs.train(LONG, out=where, checkpoint_every=0.05)
        except runs.Failed as error:
            (folder / "said").write_text(str(error))

    if waited(forked(train)) or not (folder / "said").exists():
        return Seen(False, "it did not fail as promised")
    torn, done = torn_files(where), len(Run.open(where).history())
    weights = (where / "model.safetensors").is_file()
    copy = folder / "copy"
    shutil.copytree(where, copy)
    again = goes_on(copy, LONG, folder)
    well = not torn and weights and again and done > 0
    return Seen(well, f"ended after {done} whole lines, best weights saved, with room it went on bitwise: {again}")


@fault("disk full while the history grows (a file system of 440 kB)")
def _(folder: Path) -> Seen:
    with small_disk(folder, "440k") as disk:
        return full(folder, lambda: None, disk / "run")


@fault("largest file 60 kB (ulimit -f)")
def _(folder: Path) -> Seen:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    return full(folder, limit, folder / "run")


@fault("disk full before anything is written")
def _(folder: Path) -> Seen:
    with small_disk(folder, "64k") as disk:
        process = started("--out", str(disk / "run"))
        said = process.communicate(timeout=LIMIT)[1]
        left = list(disk.iterdir())
    return Seen(
        process.returncode == 2 and said.count("\n") == 1 and not left,
        f"exit {process.returncode}: {told(said)}",
    )


@fault("read-only file system")
def _(folder: Path) -> Seen:
    with small_disk(folder, "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        process = started("--out", str(disk / "run"))
        said = process.communicate(timeout=LIMIT)[1]
    return Seen(refused(process.returncode, said), f"exit {process.returncode}: {told(said)}")


def told(said: str) -> str:
    """The last sentence of a command, without the names of folders."""
    sentence = said.strip().rpartition("error: ")[2].replace("\n", " ")
    return re.sub(r"\S*/\S*", "DISK", sentence)


def refused(code: int, said: str) -> bool:
    """Exit code 2, and one line."""
    return code == 2 and said.count("\n") == 1


def signalled(folder: Path, number: signal.Signals, nproc: int) -> Seen:
    """A signal while it trains."""
    path = folder / "run"
    more = () if nproc == 1 else ("--nproc", str(nproc), "--force")
    process = started("--out", str(path), *more)
    trains(path, process)
    time.sleep(0.5)
    children = children_of(process.pid)
    process.send_signal(number)
    start = time.monotonic()
    said = process.communicate(timeout=LIMIT)[1]
    seconds = time.monotonic() - start
    kept = Checkpoint(path / "checkpoint.safetensors").exists() and (path / "model.safetensors").exists()
    left = sum(map(lives, children))
    well = process.returncode == 128 + number and said.count("\n") == 1 and kept and not torn_files(path) and not left
    return Seen(
        well and "--resume" in said, f"exit {process.returncode} after {seconds:.1f} s, weights and state saved: {kept}"
    )


for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    for _nproc in (1, 2):
        fault(f"{_number.name}, {_nproc} process{'es' * (_nproc > 1)}")(
            lambda folder, number=_number, nproc=_nproc: signalled(folder, number, nproc)  # type: ignore[misc]
        )


@fault("SIGINT twice within a step")
def _(folder: Path) -> Seen:
    path = folder / "run"
    process = started(
        "--out", str(path), "--layers", "3000", "--engine", "stored", "-d", "points=20000", "--batch-size", "10000"
    )
    deadline = time.monotonic() + LIMIT
    while not (path / "lock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LIMIT)[1]
    seconds = time.monotonic() - start
    return Seen(process.returncode == 130 and said.count("\n") == 1 and seconds < 10, f"exit 130 after {seconds:.1f} s")


@fault("launcher killed (SIGKILL): its processes end")
def _(folder: Path) -> Seen:
    path = folder / "run"
    process = started("--out", str(path), "--nproc", "2", "--force")
    trains(path, process)
    children = children_of(process.pid)
    process.kill()
    start = time.monotonic()
    process.wait()
    while any(map(lives, children)) and time.monotonic() - start < 30:
        time.sleep(0.05)
    seconds, left = time.monotonic() - start, sum(map(lives, children))
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    kept = Checkpoint(path / "checkpoint.safetensors").exists()
    return Seen(
        not left and seconds < 10 and kept,
        f"{len(children)} of {len(children)} gone after {seconds:.1f} s, state saved: {kept}",
    )


@fault("run folder removed while it trains")
def _(folder: Path) -> Seen:
    path = folder / "run"
    child = forked(lambda: runs.train(LONG, out=path, checkpoint_every=0.0) and None)
    while not (path / "history.jsonl").exists() or not (path / "history.jsonl").stat().st_size:
        time.sleep(0.01)
    shutil.rmtree(path, ignore_errors=True)
    code = waited(child)
    return Seen(code == 0 and goes_on(path, LONG, folder), "made again, with the whole run in it")


@fault("two writers in one folder, --force and --resume")
def _(folder: Path) -> Seen:
    path = folder / "run"
    first = started("--out", str(path), epochs=4000)
    trains(path, first)
    line = [sys.executable, "-m", "liouville", "train", "--quiet"]
    others = [
        subprocess.run([*line, *words], capture_output=True, text=True)
        for words in (["--out", str(path), "--force"], ["--resume", str(path)])
    ]
    first.terminate()
    first.communicate(timeout=LIMIT)
    both = all(refused(o.returncode, o.stderr) and "is being written by process" in o.stderr for o in others)
    epochs = [record["epoch"] for record in Run.open(path).history()]
    whole = epochs == list(range(1, len(epochs) + 1))
    return Seen(both and whole, "the second one is refused, the history is the first one's")


@fault("lock left by a killed process")
def _(folder: Path) -> Seen:
    path = folder / "run"
    child = forked(lambda: runs.train(LONG, out=path, checkpoint_every=0.0) and None)
    while not (path / "history.jsonl").exists() or not (path / "history.jsonl").stat().st_size:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = (path / "lock").exists()
    return Seen(left and goes_on(path, LONG, folder), "recognised as nobody's, and the run goes on bitwise")


@fault("links in place of a run's files")
def _(folder: Path) -> Seen:
    path, outside = folder / "run", folder / "outside"
    path.mkdir()
    outside.mkdir()
    runs.train(SMALL, out=folder / "other")
    shutil.copy(folder / "other" / "config.json", path / "config.json")
    names = ("history.jsonl", "metrics.json", "model.safetensors", "checkpoint.safetensors")
    for name in names:
        (outside / name).write_text("{}")
        (path / name).symlink_to(outside / name)
    with contextlib.suppress(FileNotFoundError):
        runs.train(SMALL, out=path, force=True)
    kept = all((outside / name).read_text() == "{}" for name in names)
    return Seen(kept and Run.open(path).finished, "replaced; what they pointed to is untouched")


def damaged(content: bytearray, draw: random.Random) -> bytearray:
    """One of the ways in which files are damaged."""
    how, place = draw.randrange(4), draw.randrange(len(content))
    if how == 0:
        content[place] ^= 1 << draw.randrange(8)
    elif how == 1:
        del content[place:]
    elif how == 2:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    else:
        content[place : place + 8] = draw.randbytes(len(content[place : place + 8]))
    return content


@fault("newest checkpoint damaged, 300 seeded times")
def _(folder: Path) -> Seen:
    from liouville.sealed import DamagedFileError, opened

    path = folder / "run"
    child = forked(lambda: runs.train(LONG, out=path, checkpoint_every=0.0) and None)
    while not (path / "checkpoint.safetensors.previous").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    file = path / "checkpoint.safetensors"
    if not file.exists():
        shutil.copy(path / "checkpoint.safetensors.previous", file)
    content, draw, wrong, changed = file.read_bytes(), random.Random(0), 0, 0
    for _ in range(300):
        harmed = bytes(damaged(bytearray(content), draw))
        if harmed == content:
            continue
        changed += 1
        with contextlib.suppress(DamagedFileError):
            opened(harmed, "liouville-training-1", file)
            wrong += 1
    file.write_bytes(harmed)
    again = goes_on(path, LONG, folder)
    return Seen(
        not wrong and again, f"{changed} differ, {wrong} accepted; the state before it went on bitwise: {again}"
    )


@fault("clock set back by two years while it trains")
def _(folder: Path) -> Seen:
    path = folder / "run"

    def train() -> None:
        now, calls = time.time, [0]

        def back() -> float:
            calls[0] += 1
            return now() - 63e6 * (calls[0] > 3)

        time.time = back  # type: ignore[assignment]
        runs.train(SMALL, out=path, checkpoint_every=0.01)

    code = waited(forked(train))
    seconds = Run.open(path).metrics["seconds"]
    return Seen(code == 0 and 0 < seconds < LIMIT and goes_on(path, SMALL, folder), f"no effect; seconds {seconds:.1f}")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of the shell."""
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=LIMIT)


STREAMS = {"stdin closed": "<&-", "stderr closed": "2>&-", "reader gone": "| head -0"}


@fault("standard streams closed, or their reader gone")
def _(folder: Path) -> Seen:
    told = []
    for name, words in STREAMS.items():
        path = folder / name.replace(" ", "-")
        shell(f"{sys.executable} -m liouville train {WORDS} 3 --out {path} {words}")
        told.append((name, Run.open(path).finished))
    closed = shell(f"{sys.executable} -m liouville train {WORDS} 3 --out {folder}/closed >&-")
    told.append(("stdout closed: refused", closed.returncode == 2 and not (folder / "closed").exists()))
    return Seen(all(well for _, well in told), ", ".join(f"{name}: {'yes' if well else 'NO'}" for name, well in told))


@fault("a number that is not finite, in a weight, while it trains")
def _(folder: Path) -> Seen:
    from liouville.runs.execute import run
    from liouville.train.progress import Progress

    split = SMALL.load()
    network = SMALL.network(split.facts())

    class Harm(Progress):
        @contextlib.contextmanager
        def run(self, *_: object) -> Iterator[Progress.Bar]:
            bar = Progress.Bar()
            bar.epoch = lambda record: record.epoch == 3 and network.head.bias.data.fill_(torch.nan)  # type: ignore[method-assign]
            yield bar

    try:
        run(SMALL, network, split, folder / "run", progress=Harm(), checkpoint_every=0.0)
    except runs.Failed as error:
        said = str(error)
        state = Checkpoint(folder / "run" / "checkpoint.safetensors").exists()
        return Seen(
            "the weight head.bias is not finite" in said and state, "named in the next step; the last good state stays"
        )
    return Seen(False, "not noticed")


if __name__ == "__main__":
    main()
