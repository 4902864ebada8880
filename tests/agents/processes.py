"""Several real processes of `worker.py`, around a store that this process keeps.

They are forked from a server that has imported torch and nothing else has happened in, so that each starts at once.
"""

import multiprocessing
import time
from pathlib import Path

from agents import worker
from liouville.processes import LOOPBACK, keep_store

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "liouville.agents.transport", "liouville.agents.network"])


def run(spec, processes, out, limit=120):
    """Start them and wait; (exit codes, logs). Whoever runs beyond the limit is killed, and has the code None."""
    store = keep_store(LOOPBACK, 60)
    spec = spec | {"processes": processes}
    children = [
        CONTEXT.Process(target=worker.main, args=(spec, rank, store.port, str(out))) for rank in range(processes)
    ]
    start = time.monotonic()
    try:
        for child in children:
            child.start()
        others = [child for rank, child in enumerate(children) if rank != spec.get("victim")]
        while time.monotonic() - start < limit and any(child.is_alive() for child in others):
            time.sleep(0.02)
        codes = [None if child.is_alive() else child.exitcode for child in children]
    finally:
        for child in children:
            child.kill()
            child.join()
    del store
    return codes, [(Path(out) / f"{rank}.log").read_text() for rank in range(processes)]
