"""How fast is the kernel over time, and does its memory grow with the number of steps?

One training step over T = 1,000 steps, every state read and all gradients, float32, one thread: a Hamiltonian and an
antisymmetric layer in the kernel, a hand-written loop of the same Hamiltonian cell in torch operations, and
`torch.nn.LSTM` of equal width. CPU seconds, all in turn in one process, medians of ratios. Then the highest resident
memory of a training step that reads only the last state, in a new process for each length, less the inputs and their
gradient.

Exit code 1 if the LSTM takes less time than the Hamiltonian layer, or the loop less than 10 times as long at up to 16
samples (beyond, matrix products fill its time, and no code could be ten times as fast); or if the memory at 64,000
steps is more than 1 MB above that at 1,000.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import liouville as lv
import tables
from liouville.experiments.beyond.resident import growth

STEPS, INPUTS, WIDTHS, BATCHES = 1000, 2, (16, 32, 64), (1, 16, 64)
LENGTHS = (1000, 8000, 64_000)
KERNEL, LOOP, LSTM = "h2, kernel", "h2, loop", "nn.LSTM"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(memory(arguments.memory))
        return
    broken = []
    head = ["width", "batch", "h2 in the kernel, ms", "antisymmetric", "loop", "nn.LSTM"]
    rows = []
    for width in WIDTHS:
        for batch in BATCHES:
            seconds, ratios = timed(contestants(width, batch), arguments.repeats)
            others = [f"{ratios[name]:.1f} x" for name in ("antisymmetric, kernel", LOOP, LSTM)]
            rows.append([str(width), str(batch), f"{1e3 * seconds:.1f}", *others])
            print(" ".join(rows[-1]), flush=True)
            if batch <= 16 and ratios[LOOP] < 10:
                broken.append(f"width {width}, batch {batch}: the loop takes only {ratios[LOOP]:.1f} times as long")
            if ratios[LSTM] < 1:
                broken.append(f"width {width}, batch {batch}: nn.LSTM takes {ratios[LSTM]:.2f} times as long")
    time_table = tables.markdown(head, rows)
    found = {steps: in_its_own_process(steps) for steps in LENGTHS}
    sizes = [[f"{steps:,}", f"{size / 2**20:.1f}"] for steps, size in found.items()]
    memory_table = tables.markdown(["steps", "memory beyond inputs, MB"], sizes)
    print(time_table, memory_table, sep="\n\n")
    if arguments.page:
        tables.write(arguments.page, "time over steps", time_table)
        tables.write(arguments.page, "memory over steps", memory_table)
    if found[LENGTHS[-1]] > found[LENGTHS[0]] + 2**20:
        broken.append(f"memory grows from {found[LENGTHS[0]]:,} to {found[LENGTHS[-1]]:,} bytes")
    if broken:
        raise SystemExit("\n".join(broken))


def contestants(width: int, batch: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    u = torch.randn(STEPS, batch, INPUTS)
    ours = {
        KERNEL: lv.recurrent.HamiltonianRNN(INPUTS, width, length=STEPS, backprop=lv.Fused()),
        "antisymmetric, kernel": lv.recurrent.AntisymmetricRNN(INPUTS, width, length=STEPS, backprop=lv.Fused()),
        LSTM: nn.LSTM(INPUTS, width),
    }
    cell = ours[KERNEL].cells[0]
    with torch.no_grad():  # the loop is the same network
        torch.testing.assert_close(loop(u, weights_of(cell), cell.h), ours[KERNEL](u)[0], rtol=1e-3, atol=1e-4)

    def step(run: Callable[[], Tensor]) -> None:
        run().square().mean().backward()

    arms: dict[str, Callable[[], None]] = {
        name: lambda layer=layer: step(lambda: layer(u)[0]) for name, layer in ours.items()
    }
    arms[LOOP] = lambda: step(lambda: loop(u, weights_of(cell), cell.h))
    return arms


def weights_of(cell: nn.Module) -> dict[str, Tensor]:
    """The cell's weights without their first axis."""
    theta = cell.driven.theta()
    return {name: w[0] for name, w in zip(theta._fields, theta, strict=True)}


def loop(u: Tensor, w: dict[str, Tensor], h: float) -> Tensor:
    """Symplectic Euler on the separable field, as one writes it by hand: inputs multiplied once, states stacked."""
    to_p, to_q = (torch.addmm(w[b], x, w[f"W_{b}"].T) for b, x in (("b_q", u.flatten(0, 1)), ("b_p", u.flatten(0, 1))))
    to_p, to_q = (x.unflatten(0, u.shape[:2]).unbind(0) for x in (to_p, to_q))
    K_p, K_q, states = w["K_p"], w["K_q"], []
    p = q = u.new_zeros(u.shape[1], K_p.shape[1])
    for forced_q, forced_p in zip(to_p, to_q, strict=True):
        p = torch.addmm(p, torch.addmm(forced_q, q, K_q.T).tanh(), K_q, alpha=-h)
        q = torch.addmm(q, torch.addmm(forced_p, p, K_p.T).tanh(), K_p, alpha=h)
        states.append(torch.cat((p, q), 1))
    return torch.stack(states)


def timed(arms: dict[str, Callable[[], None]], repeats: int) -> tuple[float, dict[str, float]]:
    """The median of the kernel's CPU seconds, and of each contestant's over the kernel's of the same round."""
    for arm in arms.values():
        arm()
    rounds = []
    for _ in range(repeats):
        seconds = {}
        for name, arm in arms.items():
            start = time.process_time()
            arm()
            seconds[name] = time.process_time() - start
        rounds.append(seconds)
    ratios = {name: statistics.median(r[name] / r[KERNEL] for r in rounds) for name in arms}
    return statistics.median(r[KERNEL] for r in rounds), ratios


def memory(steps: int) -> int:
    """Bytes of a training step of many to one beyond the inputs' gradient, with inputs of one number."""
    rnn = lv.recurrent.HamiltonianRNN(1, 64, length=steps)
    rnn.final(torch.randn(1000, 8, 1)).sum().backward()  # warm up: code, pools and the weights' gradients
    u = torch.randn(steps, 8, 1, requires_grad=True)

    def step() -> list[Tensor]:
        rnn.final(u).square().sum().backward()
        assert u.grad is not None
        return [u.grad]

    found = growth(step)
    if found is None:
        raise SystemExit("this system does not report resident memory.")
    return found


def in_its_own_process(steps: int) -> int:
    command = [sys.executable, __file__, "--memory", str(steps)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
