"""What cannot work, said before it is trained: steps too few or too long for what layers turn by, too few features."""

from __future__ import annotations

__all__ = ["cautions"]

import bisect
import math

from liouville.analysis import margin
from liouville.fields import Initial
from liouville.fields.base import degrees_of
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.network import Lift, Network
from liouville.schemes.limits import GROWTH

_ENOUGH = 9.0  # T x rate at the start, below which planar data were learned worse
_DEEP = 64  # layers that need no feature beside the data
_LONGEST = 2.0  # h x rate of a scheme without a limit of its own


def cautions(network: Network) -> list[str]:
    """A sentence for each flow of vectors that starts with less than it needs, or with steps that are too long.

    One more if the data fill the half of the features that holds them, and there are few layers.

    Examples:
        >>> import liouville as lv
        >>> cautions(lv.classifier("h2", inputs=2, classes=2, features=4, layers=64, T=64.0))
        []
        >>> "forward Euler" in cautions(lv.classifier("h1", inputs=2, classes=2, features=4, layers=16, T=1.0))[0]
        True
    """
    vectors = [flow for flow in network.flows() if flow.field.feature_axis == -1]
    found = [_too_few(flow) if _is_scaled(flow) else _too_long(flow) for flow in vectors]
    found.append(_no_room(network))
    return list(dict.fromkeys(sentence for sentence in found if sentence))


def _no_room(network: Network) -> str | None:
    """Of few layers on a state of which one half holds the data, and nothing beside them."""
    lift = network.lift
    if not (isinstance(lift, Lift) and lift.place == "q" and lift.axis == -1 and lift.inputs is not None):
        return None
    layers = max(flow.layers for flow in network.flows())
    if lift.features // 2 > lift.inputs or layers >= _DEEP:
        return None
    return (
        f"{lift.inputs} inputs fill the half of the {lift.features} features that holds them. In few layers classes "
        "that lie around each other are then learned less well (double circles: 95 to 99 % at 16 layers); take "
        f"{4 * lift.inputs} features, or {_DEEP} layers."
    )


def _init(flow: Flow) -> Initial | None:
    field = unwrapped(flow.field)
    init = getattr(getattr(field, "force", field), "init", None)
    return init if isinstance(init, Initial) else None


def _is_scaled(flow: Flow) -> bool:
    init = _init(flow)
    return init is not None and init.action is not None and degrees_of(unwrapped(flow.field)) is not None


def _too_few(flow: Flow) -> str | None:
    """Of a start that asks for Omega and gets what N steps carry."""
    init, carried = _init(flow), flow.scheme.carried(flow.layers)
    wanted = init.action if init is not None and init.action is not None else 0.0
    if flow.scheme.stability_limit == 0 and carried < wanted:
        enough = _layers(flow, wanted)
        return (
            f"{flow.layers} layers of {_named(flow)} start with T x rate = {carried:.3g}, not {wanted:g}, at any T: "
            f"every step makes what turns grow, and {wanted:g} would grow more than {GROWTH:g}-fold. Planar data are "
            f"learned a little less well (96 to 98 % of the Swiss roll at 16 layers); take {enough} layers or more, or "
            "a network of shears: h2, ms1, ms3, verlet, leapfrog."
        )
    if carried < min(wanted, _ENOUGH):
        return (
            f"{flow.layers} layers of {_named(flow)} start with T x rate = {carried:.3g}, not {wanted:g}, at any T: so "
            f"few steps follow no more, which is too little for planar data; take {_layers(flow, _ENOUGH)} layers or "
            "more."
        )
    return None


def _layers(flow: Flow, action: float) -> int:
    """The least number that carries it."""
    enough = flow.layers
    while flow.scheme.carried(enough) < action:
        enough *= 2
    return bisect.bisect_left(range(enough), action, lo=enough // 2, key=flow.scheme.carried)


def _named(flow: Flow) -> str:
    return {"ForwardEuler": "forward Euler"}.get(type(flow.scheme).__name__, type(flow.scheme).__name__)


def _too_long(flow: Flow) -> str | None:
    """Of weights as they were drawn, beside a final time that may be any."""
    limit = flow.scheme.stability_limit
    limit = limit if 0 < limit < math.inf else _LONGEST
    try:
        largest = float(margin(flow).max())
    except NotImplementedError:
        return None
    if not largest > limit:
        return None
    layers, T = math.ceil(flow.layers * largest / limit), flow.T * limit / largest
    return (
        f"the steps are too long for these initial weights: h x rate = {largest:.3g}, and {_named(flow)} follows "
        f"{limit:.3g}. Take {layers} layers or more, or T = {T:.2g} or less; initial weights that are smooth in depth "
        "are scaled to fit any T (--init smooth), unless gamma damps."
    )
