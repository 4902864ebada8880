r"""The claims about a whole network: its numbers are finite, and within a radius no prediction changes."""

from __future__ import annotations

__all__ = ["of_network"]

import copy
from collections.abc import Iterator

from torch import Tensor

from liouville.analysis.attack import attacked
from liouville.analysis.certificates.claim import Claim, Status
from liouville.analysis.robustness import certified_radius
from liouville.network import Network
from liouville.precision import in_working_precision, name_of, widened


def of_network(network: Network, x: Tensor | None, sound: bool) -> Iterator[Claim]:
    """The claim that all weights and all scores over the inputs are finite; then, if all is ``sound``, the radius.

    Args:
        network: a network in evaluation mode.
        x: inputs, or None.
        sound: whether the flows' numbers are finite.
    """
    text = "every weight of the network, lift, connectors and head included, and every score over the given inputs"
    why = _not_finite(network, x if sound else None)
    status: Status = "broken" if why else "pass"
    yield Claim("finite network", f"{text}, is a finite number", status, "measured", note=why)
    if x is not None and sound and not why:
        yield from _robustness(widened(network), in_working_precision(x))


def _not_finite(network: Network, x: Tensor | None) -> str:
    """A description of the numbers that are not finite."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    bad = [name for name, t in tensors.items() if not t.isfinite().all()]
    if bad:
        return f"not finite: {', '.join(bad)}"
    if x is not None and not network(x).isfinite().all():
        return "a score over the given inputs is not finite"
    return ""


def _robustness(network: Network, x: Tensor) -> Iterator[Claim]:
    """The radius of every given input, and the results of attacks on it."""
    name = "robustness radius"
    text = "the predicted class stays the same within this distance of an input, in the 2-norm of the network's inputs"
    if network.facts is not None and isinstance(network.facts.classes, tuple):
        yield Claim(name, text, "not applicable", note="a radius is known for one target, and this network has several")
        return
    try:
        radius, route = _radius(network, x)
    except NotImplementedError as error:
        yield Claim(name, text, "not applicable", note=str(error))
        return
    except (ArithmeticError, ValueError) as error:
        yield Claim(name, text, "broken", note=str(error).rstrip("."))
        return
    exact = ""
    if route == "norms":
        text += "; for the network in exact arithmetic"
        double = copy.deepcopy(network).double()
        off = float((network(x).double() - double(x.double())).abs().max())
        exact = f"; {name_of(x.dtype)} rounds the scores of these inputs by up to {off:.2g}"
        network, x = double, x.double()
    else:
        text += f"; for the network as it runs, with its roundings in {name_of(x.dtype)}"
    if not bool((radius > 0).any()):
        yield Claim(name, text, "not applicable", route, note="no radius above 0 is known")
        return
    bound = {"median": float(radius.median()), "smallest": float(radius.min()), "largest": float(radius.max())}
    attack = attacked(network, x, radius)
    status: Status = "broken" if attack.flips else "pass"
    measured = {"changed predictions": float(attack.flips)}
    yield Claim(name, text, status, route, bound=bound, measured=measured, note=attack.note + exact)


def _radius(network: Network, x: Tensor) -> tuple[Tensor, str]:
    """The radius, and the route of its proof."""
    try:
        return certified_radius(network, x, "local"), "enclosure"
    except NotImplementedError:
        return certified_radius(network, x, "global"), "norms"
