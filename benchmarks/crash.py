"""Does a training that was killed at any moment go on to the bits of one that nothing ended, and is nothing torn?

Every case is a plan (engine, optimiser, levels, dropout, alternation, one process or two), a seeded moment and a
signal: SIGKILL mostly. After the kill every file of the run folder is read back; then the run is resumed, often to be
killed again, and what it leaves at its end is compared with an undisturbed run: model file by its bytes, history and
metrics by every number but seconds. Cases of one process are forked from this one, those of two are the command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from liouville import runs
from liouville.runs import Plan, Run
from liouville.sealed import opened
from liouville.train import Checkpoint
from tables import markdown, plain, write

SMALL = Plan.of("swiss-roll").changed(
    layers=6, T=2.0, epochs=12, batch_size=20, data_options={"points": 160}, threads=1
)
PLANS: dict[str, Plan] = {
    **{f"engine {name}": SMALL.changed(engine=name) for name in ("fused", "batch-last", "stored", "checkpointed")},
    "engine reversible, dropout": SMALL.changed(engine="reversible", dropout=0.1),
    "adamw, weight decay, average": SMALL.changed(optimizer="adamw", weight_decay=0.1, ema_decay=0.9),
    "sgd, cosine, no validation": SMALL.changed(optimizer="sgd", schedule="cosine", lr=0.1, validation=0.0),
    "alternation": SMALL.changed(alternate=2, epochs=8),
    "bfloat16, clipped": SMALL.changed(dtype="bfloat16", max_grad_norm=0.1, engine="stored"),
    "levels, dropout": SMALL.changed(levels=3, layers=8, T=0.5, epochs=8, dropout=0.1),
    "levels, adamw, patience": SMALL.changed(levels=2, layers=8, T=0.5, epochs=12, optimizer="adamw", patience=3),
    "gauss-newton": SMALL.changed(optimizer="gauss-newton", epochs=4, layers=4),
    "gauss-newton, joint, trust region": SMALL.changed(
        optimizer="gauss-newton", head="joint", safeguard="trust-region", epochs=4, layers=4
    ),
    "gauss-newton, alternating": SMALL.changed(
        optimizer="gauss-newton", head="alternating", batch_size=60, epochs=6, layers=4
    ),
    "gauss-newton, levels": SMALL.changed(optimizer="gauss-newton", epochs=2, layers=4, levels=2, T=0.5),
}
TWO = {
    "two processes, dropout": SMALL.changed(dropout=0.1, epochs=12),
    "two processes, levels": SMALL.changed(levels=2, layers=8, T=0.5, epochs=6),
}
AGENTS = "agents in a ring"
RING = "0 1\n1 2\n2 3\n3 0\n"
WORDS = "--layers 3 -d points=160 --batch-size 20 --epochs 12 --quiet"
LIMIT = 240.0  # seconds that anything may take
ENDS = 10.0  # seconds that processes may outlive their launcher


class Case(NamedTuple):
    """One run, killed at these shares of its time."""

    number: int
    name: str
    plan: Plan
    every: float
    kills: tuple[float, ...]
    from_start: bool  # or from the first epoch that is written
    victim: str  # what the signal goes to: the run, or of several processes the launcher or one of them


class Outcome(NamedTuple):
    """What became of a case."""

    bitwise: bool
    torn: list[str]
    from_state: int  # resumed from a checkpoint; the others began again
    orphans: int
    note: str = ""


def cases(count: int, seed: int) -> list[Case]:
    """``count`` cases, one in twenty of them in two processes."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        two = number % 20 == 19
        names = list(TWO if two else [AGENTS, *PLANS])
        name = names[(number // 20 if two else number - number // 20) % len(names)]
        kills = tuple(draw.uniform(0.0, 1.1) for _ in range(1 if two else draw.choice((1, 1, 2, 3))))
        victim = draw.choice(("launcher", "0", "1")) if two else "run"
        every = draw.choice((0.0, 0.0, 0.02, 0.05, 1e6))
        plan = (TWO | PLANS).get(name, SMALL)
        made.append(Case(number, name, plan, every, kills, draw.random() < 0.2, victim))
    return made


def main() -> None:
    """Run them, and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = References(Path(folder))
        tally: dict[str, Counter[str]] = {}
        failures = []
        for case in cases(options.cases, options.seed):
            outcome = outcome_of(case, Path(folder) / f"case-{case.number}", undisturbed)
            count = tally.setdefault(case.name, Counter())
            count.update(cases=1, kills=len(case.kills), bitwise=int(outcome.bitwise), state=outcome.from_state)
            count.update(torn=len(outcome.torn), orphans=outcome.orphans)
            print(f"case {case.number}, {case.name}: {outcome}", flush=True)
            if not outcome.bitwise or outcome.torn or outcome.orphans:
                failures.append(f"case {case.number}, {case}: {outcome}")
            shutil.rmtree(Path(folder) / f"case-{case.number}", ignore_errors=True)
    rows = [(name, *(tally[name][key] for key in KEYS)) for name in tally]
    rows.append(("all", *(sum(count[key] for count in tally.values()) for key in KEYS)))
    head = ("run", "cases", "kills", "bitwise", "found a checkpoint", "torn files", "left running")
    told = [tuple(map(str, row)) for row in rows]
    print(plain(head, told))
    print(*failures, sep="\n")
    if options.page:
        write(options.page, "kills", markdown(head, told))
    sys.exit(bool(failures))


KEYS = ("cases", "kills", "bitwise", "state", "torn", "orphans")


class References:
    """Undisturbed runs by their plan, and the seconds that each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, tuple[Path, float]] = {}

    def of(self, case: Case) -> tuple[Path, float]:
        """The folder, and the seconds from the first epoch to the end."""
        if case.name not in self.known:
            path = self.folder / f"reference-{len(self.known)}"
            if case.victim == "run":
                child = forked(lambda: train(case, path, 1e6))
                start = began(path, lambda: lives(child))
                code = waited(child)
                seconds = time.monotonic() - start
            else:
                process = command(case, path)
                start = began(path, lambda: process.poll() is None)
                code = process.wait(LIMIT)
                seconds = time.monotonic() - start
            if code:
                raise RuntimeError(f"the undisturbed run of {case.name} ended with {code}")
            self.known[case.name] = path, seconds
        return self.known[case.name]


def outcome_of(case: Case, path: Path, references: References) -> Outcome:
    """Kill, read back, resume, compare."""
    reference, seconds = references.of(case)
    torn: list[str] = []
    resumed = orphans = 0
    for share in case.kills:
        if case.victim == "run":
            child = forked(lambda: train(case, path, case.every))
            if not case.from_start:
                began(path, lambda: lives(child))  # noqa: B023
            time.sleep(share * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        else:
            orphans += killed(case, path, share * seconds)
        torn += torn_files(path)
        resumed += bool(Checkpoint(path / "checkpoint.safetensors").exists() or list(path.glob("node-*")))
    if case.victim == "run":
        code = waited(forked(lambda: train(case, path, case.every)))
    else:
        code = command(case, path).wait(LIMIT)
    if code:
        return Outcome(False, torn, resumed, orphans, f"the last resume ended with {code}")
    torn += [str(p) for p in path.iterdir() if p.name.startswith((".", "lock")) or p.name.startswith("checkpoint")]
    return Outcome(same(reference, path), torn, resumed, orphans)


def train(case: Case, path: Path, every: float) -> None:
    """In a child: begin, or go on."""
    if case.name != AGENTS:
        runs.train(case.plan, out=path, resume=True, checkpoint_every=every)
        return
    from liouville.__main__ import main as command

    graph = path.with_name("ring.txt")
    graph.write_text(RING)
    begun = any(path.glob("node-*"))
    words = ["--resume", str(path), "--quiet"] if begun else [*WORDS.split(), "--graph", str(graph), "--out", str(path)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        code = command(["agents", *words])
    if code:
        raise SystemExit(code)


def forked(work: Callable[[], None]) -> int:
    """A child of this process that does this and nothing else."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def waited(child: int) -> int:
    """The exit code of a child, which may take as long as it likes."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(case: Case, path: Path) -> subprocess.Popen[bytes]:
    """The run in two processes, begun or resumed."""
    words = [sys.executable, "-m", "liouville", "train", "--nproc", "2", "--force", "--quiet", "--no-figures"]
    words += ["--checkpoint-every", str(case.every)]
    if (path / "config.json").exists():
        words += ["--resume", str(path)]
    else:
        seed = path.with_name("plan")
        seed.mkdir(exist_ok=True)
        text = json.dumps({"format": "liouville-run-1", "plan": case.plan.as_dict(), "data": facts(case.plan)})
        (seed / "config.json").write_text(text)
        words += ["--like", str(seed), "--out", str(path)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def facts(plan: Plan) -> Any:
    """Of the plan's data, as a run has them."""
    return plan.load().facts().as_dict()


def began(path: Path, runs_on: Callable[[], bool]) -> float:
    """When the run has written an epoch, or ended."""
    before = stamp(path)
    deadline = time.monotonic() + LIMIT
    while stamp(path) == before and runs_on() and time.monotonic() < deadline:
        time.sleep(0.02)
    return time.monotonic()


def stamp(path: Path) -> float:
    """When an epoch was last written; 0 where there is none."""
    with contextlib.suppress(OSError):
        if nodes := list(path.glob("node-*")):
            return max(node.stat().st_mtime for node in nodes)
        found = (path / "history.jsonl").stat()
        return found.st_mtime if found.st_size else 0.0
    return 0.0


def killed(case: Case, path: Path, seconds: float) -> int:
    """Start the command, kill the launcher or one of its processes; how many of them were left running."""
    process = command(case, path)
    if not case.from_start:
        began(path, lambda: process.poll() is None)
    children = children_of(process.pid)
    time.sleep(seconds)
    victims = {"launcher": process.pid} | dict(zip(("0", "1"), children, strict=False))
    with contextlib.suppress(ProcessLookupError, KeyError):
        os.kill(victims[case.victim], signal.SIGKILL)
    process.wait(LIMIT)
    deadline = time.monotonic() + ENDS
    while any(map(lives, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [child for child in children if lives(child)]
    for child in left:
        os.kill(child, signal.SIGKILL)
    return len(left)


def children_of(process: int) -> list[int]:
    """The processes that it started."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def lives(process: int) -> bool:
    """Whether it is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def torn_files(path: Path) -> list[str]:
    """Files of a killed run that cannot be read back; what was written is whole or not there."""
    torn = []
    for node in path.glob("node-*"):
        try:
            opened(node.read_bytes(), "liouville-agents", node)
        except ValueError as error:
            torn.append(str(error))
    if not (path / "config.json").exists():
        return torn
    try:
        run = Run.open(path)
        if (path / "history.jsonl").exists():
            run.history()
        if (path / "model.safetensors").exists():
            run.network()
    except (OSError, ValueError) as error:
        torn.append(str(error))
    return torn


def same(one: Path, other: Path) -> bool:
    """Whether two runs left the same model file, history and metrics; agents, the same file for each node."""
    if any(one.glob("node-*")):
        names = [{p.name for p in folder.glob("node-*")} for folder in (one, other)]
        return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])
    files = [(folder / "model.safetensors").read_bytes() for folder in (one, other)]
    a, b = map(Run.open, (one, other))
    return (
        files[0] == files[1]
        and without_seconds(a.history()) == without_seconds(b.history())
        and without_seconds(a.metrics) == without_seconds(b.metrics)
    )


def without_seconds(value: Any) -> Any:
    """JSON without times."""
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
