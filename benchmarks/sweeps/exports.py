"""Do compiled, traced and exported networks give the eager network's answers, on other inputs and other batch sizes?

Random networks (paper, width, depth, T, engine, dtype, vectors or images, dropout, user modules), each handed to one
recorder or compiler; the oracle is the eager plain loop, `Stored`, of the same weights.
"""

from __future__ import annotations

import random
import sys
import traceback
import warnings
from typing import Any

import torch
from recorders import ANY_BATCH, COMPILERS, RECORDERS, quiet
from sweep import Outcome, run
from torch import Tensor, nn

import liouville as lv
from liouville.schemes import StabilityWarning
from liouville.zoo.networks import Images

PAPERS = ("h1", "h2", "ms1", "ms2", "ms3", "antisymmetric", "verlet", "leapfrog", "midpoint", "resnet")
ENGINES = (
    lv.Auto(),
    lv.Auto(memory=1),
    lv.Fused(),
    lv.Fused(exact=True),
    lv.Reversible(),
    lv.Reversible(exact=True),
    lv.Reversible(compensated=True),
    lv.Checkpointed(),
    lv.BatchLast(),
    lv.Stored(),
)
REFUSALS = (ValueError, NotImplementedError, TypeError)
COMPILED_SHARE = 0.12


def case(draw: random.Random) -> Outcome:
    """One network, one way to run it."""
    compiled = draw.random() < COMPILED_SHARE
    ways = COMPILERS if compiled else RECORDERS
    way = draw.choice([w for w in ways if w != "inductor" or draw.random() < 0.1])
    dtype = torch.float32 if "onnx" in way else draw.choice((torch.float32, torch.float64))
    torch.manual_seed(draw.randrange(2**31))
    network, shape, words = _network(draw, 4 if compiled else draw.choice((5, 17, 70)))
    words += f", {dtype}, {way}"
    network = network.to(dtype).eval()
    oracle = network.with_backprop(lv.Stored())
    engine = draw.choice(ENGINES)
    try:
        network = network.with_backprop(engine)
    except ValueError:
        words += ", Auto() for"
        network = network.with_backprop(lv.Auto())
    words += f" {engine}"
    return _compared(draw, ways[way], way, network, oracle, shape, dtype, words, compiled)


def _network(draw: random.Random, layers: int) -> tuple[lv.Network, tuple[int, ...], str]:
    kind = draw.choice(("dense",) * 6 + ("images", "dropout", "modules", "implicit"))
    features, T, paper = draw.choice((4, 6, 10)), draw.uniform(0.1, 3.0), draw.choice(PAPERS)
    words = f"{kind} {paper}, {features} features, {layers} layers, T={T:.2f}"
    if kind == "images":
        paper, shape = draw.choice(("h2", "ms1", "ms3", "leapfrog", "resnet", "midpoint")), (1, 6, 6)
        network = lv.classifier(paper, shape, 3, features=4, layers=min(layers, 5), T=T, conv=Images())
        return network, shape, f"{words} as {paper}"
    if kind in ("dense", "dropout"):
        rate = 0.3 if kind == "dropout" else 0.0
        lift = draw.choice((None, "linear")) if paper != "verlet" else None
        more: dict[str, Any] = {"dropout_rate": rate} | ({"lift": lift} if lift else {})
        return lv.classifier(paper, 2, 3, features=features, layers=layers, T=T, **more), (2,), words
    if kind == "implicit":
        body = lv.Flow(lv.HamiltonianField(features, min(layers, 5)), lv.ImplicitMidpoint(), T=0.3)
    else:
        half, scheme = (
            features // 2,
            draw.choice((lv.SymplecticEuler(), lv.Verlet(), lv.Yoshida4(), lv.LeapfrogMidpoint())),
        )
        block = nn.Sequential(nn.LayerNorm(half), nn.Linear(half, 7), nn.GELU(), nn.Linear(7, half, bias=False))
        body = lv.Flow(lv.ShearField(block, block, layers=min(layers, 5), features=features), scheme, T=T)
        words += f", {scheme}"
    return lv.Network(lv.Lift(features), body, nn.Linear(features, 3)), (2,), words


def _compared(
    draw: random.Random,
    record: Any,
    way: str,
    network: lv.Network,
    oracle: lv.Network,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    words: str,
    compiled: bool,
) -> Outcome:
    batch = draw.choice((2, 5, 9))
    with quiet():
        try:
            function = record(network, torch.randn(batch, *shape, dtype=dtype))
        except Exception as error:
            said = _sentence(error)
            if said is None:
                raise
            sentence = len(said) < 400 and "\n" not in said
            return Outcome("refused" if sentence else "wrong", f"{words}: {said}")
        for size in (batch, *((3, 70, 129) if compiled or way in ANY_BATCH else ())):
            z = 2 * torch.randn(size, *shape, dtype=dtype) + 0.5
            if not _agree(function, oracle, z, list(network.parameters()) if compiled else []):
                return Outcome("wrong", f"{words}: at a batch of {size}, recorded at {batch}")
    return Outcome("right", words)


def _sentence(error: BaseException | None) -> str | None:
    """What the library said, under what torch's exporters made of it; None where it said nothing."""
    while error is not None:
        if isinstance(error, REFUSALS) and _is_ours(error):
            return str(error)
        if isinstance(error, torch._dynamo.exc.Unsupported) and "NotImplementedError" in str(error):
            return "NotImplementedError"  # a strict export keeps the kind of error, and the rest in pieces
        error = error.__cause__ or error.__context__
    return None


def _is_ours(error: BaseException) -> bool:
    """Whether the library raised it, and nobody below."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals["__name__"]).startswith("liouville")


def _agree(function: Any, oracle: lv.Network, z: Tensor, weights: list[Tensor]) -> bool:
    """Values, and gradients where the way has them: to rounding, which a deep network amplifies."""
    found = []
    for run_it in (function, oracle):
        out = run_it(z)
        found.append([out.detach(), *(torch.autograd.grad(out.square().mean(), weights) if weights else ())])
    tolerance = 1e4 * torch.finfo(z.dtype).eps
    return all(
        bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1.0)) for a, b in zip(*found, strict=True)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", StabilityWarning)  # random T: the numbers are compared, not the choice
    sys.exit(run("compiled, traced or exported networks", case, count=200))
