"""A certificate in plain words: what is guaranteed, for every input, and what was only measured."""

from __future__ import annotations

__all__ = ["certified", "in_words"]

from liouville.analysis import Certificate, Claim
from liouville.report.page.blocks import Section, Table, number
from liouville.report.page.record import Record

_STATUS = {"pass": "holds", "not applicable": "no claim", "broken": "broken"}
_ROUTES = {
    "symplectic": "every layer is symplectic",
    "det = 1": "every layer preserves volume",
    "det >= 1": "no layer shrinks volume",
}


def certified(record: Record) -> Section:
    """The verdict, a sentence for each claim, and the claims as `liouville check` prints them."""
    title, certificate = "Certificate", record.certificate
    if certificate is None:
        return Section(title, f"Not applicable: {record.lacks}")
    rows = [(_title(claim, certificate), _STATUS[claim.status], in_words(claim)) for claim in certificate.claims]
    verdict = (
        "No claim about this network is broken."
        if certificate.holds
        else (f"This network is not what it claims to be: {'; '.join(c.note or c.name for c in certificate.broken)}.")
    )
    lead = f"{verdict} Where it says “every input”, that is proved from the weights; the rest was measured on samples."
    plain = Table("What is guaranteed, in words", ("about", "status", "in words"), rows)
    head = ("claim", "status", "guaranteed", "measured", "route or reason")
    return Section(title, lead, [plain, Table(certificate.subject, head, certificate.rows(), folded=True)])


def _title(claim: Claim, certificate: Certificate) -> str:
    several = len({c.flow for c in certificate.claims if c.flow is not None}) > 1
    return f"{claim.name}, flow {claim.flow}" if several and claim.flow is not None else claim.name


def in_words(claim: Claim) -> str:
    """A claim in a sentence or two.

    Examples:
        >>> in_words(Claim("lower bound", "", "pass", "symplectic", measured={"least 2": 1.25}))  # doctest: +ELLIPSIS
        'Gradients cannot vanish: ... because every layer is symplectic. The least measured was 1.25.'
    """
    if claim.status == "broken":
        return f"{_sentence(claim.note or claim.statement)}"
    if claim.status == "not applicable":
        return f"Nothing is claimed: {_lower(claim.note or 'no proof is known')}."
    words = _PASSED.get(claim.name)
    return _sentence(claim.statement) if words is None else words(claim)


def _lower_bound(claim: Claim) -> str:
    why = _ROUTES.get(claim.route, claim.route)
    return (
        "Gradients cannot vanish: between any two layers, for every input, the Jacobian has a norm of at least 1, "
        f"because {why}.{_least(claim.measured)}"
    )


def _least(measured: object) -> str:
    values = [v for k, v in dict(measured).items() if k.startswith("least")]  # type: ignore[call-overload]
    return f" The least measured was {number(min(values))}." if values else ""


def _layers(claim: Claim) -> str:
    why = _ROUTES.get(claim.route, claim.statement)
    return f"{why[0].upper()}{why[1:]}, up to rounding; measured layer by layer."


def _upper_bound(claim: Claim) -> str:
    largest = claim.measured.get("largest 2-norm")
    seen = "" if largest is None else f" The largest measured was {number(largest)}."
    return (
        f"Gradients cannot explode beyond a factor of {number(claim.bound.get('U'))}, for every input; the factor "
        f"follows from nothing but the weights.{seen}"
    )


def _singular(claim: Claim) -> str:
    return (
        f"No direction is shrunk below {number(claim.bound.get('smallest'))} or stretched beyond "
        f"{number(claim.bound.get('largest'))} of its length, for every input. Measured: from "
        f"{number(claim.measured.get('smallest'))} to {number(claim.measured.get('largest'))}."
    )


def _inverse(claim: Claim) -> str:
    drift = [f"{number(v)} in {k.removeprefix('drift ')}" for k, v in claim.measured.items() if k.startswith("drift")]
    seen = f" Measured error after running all layers backwards: {', '.join(drift)}, relative." if drift else ""
    return f"The layers can be run backwards, so states can be rebuilt in place of stored.{seen}"


def _radius(claim: Claim) -> str:
    median, least = claim.bound.get("median"), claim.bound.get("smallest")
    if median is None:
        return _sentence(claim.statement)
    return (
        f"For half of the measured inputs no change of length up to {number(median)} changes the answer, and for none "
        f"a change up to {number(least)}; lengths are in the units of the network's inputs."
    )


def _step(claim: Claim) -> str:
    largest, limit = max(claim.measured.values(), default=None), claim.bound.get("limit")
    return (
        f"Advice, no proof: the step times the rate of a layer is at most {number(largest)}, and the scheme is stable "
        f"below {number(limit)}."
    )


def _budget(claim: Claim) -> str:
    bound = ", ".join(f"{k} {number(v)}" for k, v in claim.bound.items())
    return f"The budget that the network was given is kept, for every input ({bound})."


_PASSED = {
    "file": lambda claim: "The weights are those that were written: their hash matches.",
    "label": lambda claim: "The network is the one that the run's plan describes, and so are its data.",
    "finite": lambda claim: "All weights, and all measured states, are finite numbers.",
    "finite network": lambda claim: "All weights, and all measured scores, are finite numbers.",
    "lower bound": _lower_bound,
    "layers": _layers,
    "upper bound": _upper_bound,
    "singular values": _singular,
    "inverse": _inverse,
    "robustness radius": _radius,
    "step size": _step,
    "budget": _budget,
}


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _lower(text: str) -> str:
    return text.rstrip(".")
