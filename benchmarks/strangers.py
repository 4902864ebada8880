"""What somebody who reaches gloo's ports can do to a run of two processes: connect, write, hold, hang up, take a place.

A run meets in a folder that nobody else enters; its gloo connections listen on loopback, where every local user may
connect. Each attack meets a run of its own, from the moment its ports open, as another user where this one is root; it
is counted what the run did: went on to its right end, or ended in an error, or hung. A payload that would run is a file
that appears.
"""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NOBODY = 65534
HUGE = 2**62


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.path, "w")


def message(opcode: int, slot: int, length: int, roffset: int = 0) -> bytes:
    """The head of a message as gloo's TCP transport has it: sizes and a slot, six numbers of 8 bytes."""
    return struct.pack("<6Q", 48 + length, opcode, slot, 0, length, roffset)


def nothing(peer: socket.socket, payload: bytes) -> None:
    """Hang up at once."""


def garbage(peer: socket.socket, payload: bytes) -> None:
    """Random bytes."""
    peer.sendall(os.urandom(4096))


def web(peer: socket.socket, payload: bytes) -> None:
    """A request of a browser."""
    peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def held(peer: socket.socket, payload: bytes) -> None:
    """Half of a first word, and then silence."""
    peer.sendall(b"\0\0\0")
    time.sleep(2)


def pickled(peer: socket.socket, payload: bytes) -> None:
    """A pickle that runs code where somebody loads it."""
    peer.sendall(payload)


def placed(number: int, rest: bytes) -> Callable[[socket.socket, bytes], None]:
    """Take the place of the peer with this number, then send something."""

    def attack(peer: socket.socket, payload: bytes) -> None:
        peer.sendall(struct.pack("<Q", number) + rest + payload)
        time.sleep(2)

    return attack


ATTACKS: dict[str, list[Callable[[socket.socket, bytes], None]]] = {
    "connects and hangs up": [nothing],
    "sends random bytes": [garbage],
    "sends a request of a browser": [web],
    "holds the connection": [held],
    "sends a pickle": [pickled],
    "takes a peer's place, and is silent": [placed(k, b"") for k in range(16)],
    "takes a peer's place, and sends a pickle": [placed(k, message(1, 0, 4096)) for k in range(16)],
    "takes a peer's place, and announces 2^62 bytes": [placed(k, message(1, 0, HUGE)) for k in range(16)],
    "takes a peer's place, and writes before a buffer": [
        placed(k, message(0, 0, 64, roffset=2**64 - 64)) for k in range(16)
    ],
}


def listening(children: list[int]) -> set[int]:
    """The ports of loopback on which these processes listen."""
    mine = set()
    for pid in children:
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        mine |= {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in mine}


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def strike(ports: list[int], name: str, path: str) -> None:
    """In a process of its own, as nobody where that can be: what this attack does at each port."""
    "localhost".encode("idna")  # what is imported late may not be readable for nobody
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    payload = pickle.dumps(Payload(path))
    for port in ports:
        for attack in ATTACKS[name]:
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as peer:
                    attack(peer, payload) if len(ATTACKS[name]) == 1 else _forked(attack, peer, payload)
            except OSError:
                continue


def _forked(attack: Callable[[socket.socket, bytes], None], peer: socket.socket, payload: bytes) -> None:
    """All places at once, each in its own process, or the first would hold up the others."""
    if os.fork() == 0:
        try:
            attack(peer, payload)
        finally:
            os._exit(0)


def run(name: str | None, command: list[str], limit: float) -> tuple[str, str, bool]:
    """What became of a run under an attack: how it ended, its last words, and whether code ran."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o777)
        ran = Path(scratch) / "ran"
        victim = subprocess.Popen(command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        began, struck = time.monotonic(), set[int]()
        while victim.poll() is None and time.monotonic() - began < limit:
            ports = sorted(listening(children(victim.pid)) - struck) if name else []
            if ports and name:
                struck |= set(ports)
                subprocess.Popen([sys.executable, __file__, "--strike", name, str(ran), *map(str, ports)])
            time.sleep(0.02)
        hung = victim.poll() is None
        if hung:
            victim.terminate()
        out = victim.communicate(timeout=60)[0]
        if name and not struck:
            return "no port was seen", "", ran.exists()
        return "hung" if hung else f"exit {victim.returncode}", (out.strip().splitlines() or [""])[-1], ran.exists()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strike", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=90, help="seconds of a run")
    parser.add_argument("--only", action="append", help="this attack, and no other")
    given = parser.parse_args()
    if given.strike:
        name, path, *ports = given.strike
        strike([int(port) for port in ports], name, path)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        ring = Path(folder) / "ring.txt"
        ring.write_text("0 1\n1 2\n2 3\n3 0\n")
        command = [sys.executable, "-m", "liouville", "agents", "--graph", str(ring), "--nproc", "2", "--force"]
        command += ["--layers", "4", "--epochs", "10", "-d", "points=200", "--timeout", "10", "--quiet"]
        executed = 0
        for name in given.only or (None, *ATTACKS):
            began = time.monotonic()
            how, said, ran = run(name, command, given.limit)
            executed += ran
            took = f"{time.monotonic() - began:.0f} s"
            code = "YES" if ran else "no"
            print(f"{name or 'no attack':50} {how:8} {took:5} code ran: {code}   {said[:110]}", flush=True)
    return int(executed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
