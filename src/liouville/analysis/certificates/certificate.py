r"""Certificates: the guarantees for *this* network, their grounds, and measurements.

Each claim has a statement, the route of its proof, the assumptions of that proof measured on the object, the bound that
follows from the weights, and measurements on some samples. A claim is *broken* if the object violates a statement of
its class or file, or a measurement contradicts the bound. It is *not applicable* where no proof is known, which is not
a defect. A certificate holds if no claim is broken.
"""

from __future__ import annotations

__all__ = ["Certificate", "Claim", "certify"]

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from liouville.analysis.certificates.flows import Claim, of_flow, probes
from liouville.analysis.certificates.predictions import of_network
from liouville.analysis.overtime import certified_sequences
from liouville.analysis.states import require_samples
from liouville.display import table
from liouville.fields import SecondOrderField
from liouville.fields.wrapped import wrapping
from liouville.files import without_nan
from liouville.flow import Flow
from liouville.network import Network
from liouville.precision import name_of, require_floating, working
from liouville.recurrent import Cell, Recurrent, SequenceNetwork
from liouville.sequences import Inputs, Sequences, numbers, sequences_of


@dataclass(frozen=True)
class Certificate:
    """The claims about a network; print it to see a table.

    Args:
        subject: a description of the certified object.
        claims: first the claims about each flow, then the claims about the network.
    """

    subject: str
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """Whether no claim is broken."""
        return not self.broken

    @property
    def broken(self) -> tuple[Claim, ...]:
        """The claims that are broken."""
        return tuple(claim for claim in self.claims if claim.status == "broken")

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Claim, status, guaranteed, measured, route or reason: the lines of a table."""
        several = len({claim.flow for claim in self.claims if claim.flow is not None}) > 1
        return [
            (
                f"{claim.name}, flow {claim.flow}" if several and claim.flow is not None else claim.name,
                claim.status,
                _numbers(claim.bound),
                _numbers(claim.measured),
                claim.note or claim.route,
            )
            for claim in self.claims
        ]

    def __str__(self) -> str:
        head = ("claim", "status", "guaranteed", "measured", "route or reason")
        rows = [head, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:4], widths, strict=True)), row[4]]) for row in rows]
        verdict = "no claim is broken" if self.holds else f"broken: {', '.join(c.name for c in self.broken)}"
        return "\n".join([self.subject, *(line.rstrip() for line in lines), verdict])

    def _repr_html_(self) -> str:
        """The table of ``print(certificate)``, for notebooks."""
        verdict = "no claim is broken" if self.holds else f"broken: {', '.join(c.name for c in self.broken)}"
        return table(
            self.subject, ("claim", "status", "guaranteed", "measured", "route or reason"), self.rows(), verdict
        )

    def as_dict(self) -> dict[str, Any]:
        """A JSON value; numbers that are not finite become null."""
        claims = [asdict(claim) | {"assumptions": [a._asdict() for a in claim.assumptions]} for claim in self.claims]
        return without_nan(
            {"format": "liouville-certificate-1", "subject": self.subject, "holds": self.holds, "claims": claims}
        )

    def to_json(self) -> str:
        """The certificate as text."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)


@torch.no_grad()
def certify(
    flow: Flow | Network | Recurrent | Cell | SequenceNetwork, y: Inputs | PackedSequence | None = None
) -> Certificate:
    r"""Certify a flow, a network's flows and its predictions, or a recurrent layer over time, in evaluation mode.

    Claims for each flow: finite weights; the lower bound ||dState_N/dState_j|| >= 1 and the law of each layer that
    implies it; the upper bound U; the range of the singular values; the budget, if it has one; the inverse and its
    expected drift; the step-size margin, which is advice. For a classifier: the radius within which no prediction can
    change. The proofs and bounds are about the map that the weights define in exact arithmetic; norms are evaluated in
    the dtype of the weights (float32 for 16 bits), sensitivities in float64. Finiteness and inversion of the states
    are measured in the network's own arithmetic.

    Args:
        flow: a `Flow`, a `Network`, or a recurrent layer or cell; then there is a flow for each cell and each of up to
            four sequences, whose layers are the steps (`liouville.recurrent.along`). Of a `SequenceNetwork` the claims
            are about its recurrent layer, as the certificate says; nothing is claimed of its head.
        y: states for a flow, inputs for a network; normally distributed probes if None. As many as a second or two
            allows are measured, in float64. For a recurrent layer sequences, which must be given, also
            packed or as `liouville.data.Sequences`, of unequal lengths.

    Raises:
        ValueError: if y does not fit.
        NotImplementedError: if a method was replaced on an object whose weights are not float64.

    Examples:
        >>> import liouville as lv
        >>> certificate = certify(lv.zoo.h2(4, layers=8, T=1.0))
        >>> certificate.holds, certificate.claims[1].name, certificate.claims[1].route
        (True, 'lower bound', 'symplectic')
    """
    if isinstance(flow, Recurrent | Cell | SequenceNetwork):
        return _over_time(flow, y)
    if isinstance(y, Sequences | PackedSequence):
        raise ValueError(
            "sequences are for recurrent layers and networks; a Flow or a Network is certified at a tensor of samples."
        )
    if not isinstance(flow, Flow | Network):
        raise ValueError(
            "a certificate is for a Flow, a Network, a recurrent layer or a SequenceNetwork, got "
            f"{type(flow).__name__}; backward_sensitivity and gradient_verdict take any chain of modules."
        )
    if y is not None:
        require_samples(y)
    for name, weight in flow.named_parameters():
        require_floating(weight.dtype, f"the weights {name}")
    _require_own_functions(flow)
    subject = copy.deepcopy(flow).eval()
    if isinstance(subject, Flow):
        states = probes(subject) if y is None else y.detach()
        return Certificate(_sentence(subject), tuple(of_flow(subject, states, None)))
    claims: list[Claim] = []
    inputs = _inputs(subject, y)
    for i, part in enumerate(subject.flows()):
        claims += of_flow(part, inputs[part] if part in inputs else probes(part), i)
    sound = all(claim.status != "broken" for claim in claims)
    claims += of_network(subject, None if y is None else y.detach(), sound)
    return Certificate(
        "; ".join(_sentence(part) for part in subject.flows()) or "a network without flows", tuple(claims)
    )


def _over_time(rnn: Recurrent | Cell | SequenceNetwork, sequences: Inputs | PackedSequence | None) -> Certificate:
    if isinstance(sequences, PackedSequence):
        sequences = sequences_of(sequences)
    if sequences is None:
        raise ValueError("over time the claims are about given sequences; give some, in the form that the layer takes.")
    whose = ""
    if isinstance(rnn, SequenceNetwork):
        whose, rnn = "the recurrent layer of a SequenceNetwork, without its head: ", rnn.rnn
    require_samples(numbers(sequences))
    _require_own_functions(rnn)
    claims: list[Claim] = []
    flows = list(certified_sequences(copy.deepcopy(rnn).eval(), sequences))
    for i, (flow, states) in enumerate(flows):
        claims += of_flow(flow, states, i)
    known = list(dict.fromkeys(_sentence(flow) for flow, _ in flows))
    return Certificate(whose + "; ".join(known).replace(" layers of ", " steps of "), tuple(claims))


def _require_own_functions(flow: nn.Module) -> None:
    """Raise where a function put on an object would compute with float32 weights in the float64 copy."""
    if all(p.dtype == torch.float64 for p in flow.parameters()):
        return
    for name, module in flow.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, FunctionType | MethodType) and hasattr(type(module), key):
                raise NotImplementedError(
                    f"{key} was replaced on the object {name or type(module).__name__}, but a certificate measures a "
                    "copy in float64, which such a function does not use; write it into a subclass, or give weights "
                    "of float64."
                )


def _inputs(network: Network, x: Tensor | None) -> dict[nn.Module, Tensor]:
    """The first input of each flow that runs."""
    seen: dict[nn.Module, Tensor] = {}
    if x is None:
        return seen

    def note(flow: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(flow, args[0].detach())

    hooks = [flow.register_forward_pre_hook(note) for flow in network.flows()]
    try:
        network(x)
    except ArithmeticError:
        pass  # an implicit layer without a solution, which the claims about its flow report
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _sentence(flow: Flow) -> str:
    fields = list(wrapping(flow.field))
    if isinstance(fields[-1], SecondOrderField):
        fields.append(fields[-1].force)
    names = [type(field).__name__ for field in fields]
    sentence = f"{flow.layers} layers of {type(flow.scheme).__name__} through {' of '.join(names)}, T = {flow.T:g}"
    halves = sorted({name_of(p.dtype) for p in flow.parameters() if p.dtype != working(p.dtype)})
    if halves:
        sentence += f", weights of {', '.join(halves)} (claims are about these weights in exact arithmetic)"
    return sentence


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
