"""The papers' statements hold, each check can fail, records say what was measured, and the pages name the checks."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville import fields, schemes
from liouville.fields import AntisymmetricField, HamiltonianField, SecondOrderField, SeparableHamiltonianField
from liouville.schemes.growth import log_growth as growth
from liouville.train import Task
from liouville.verify import (
    STATEMENTS,
    Finding,
    Number,
    Statement,
    dissipation,
    learning,
    p1_propagation,
    p2_sensitivity,
    p2_wider,
    p3_unified,
    proved,
    select,
    verify,
)
from liouville.verify.statements import at_least, at_most, near, statement
from turns import one_in


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_statement_holds(name):
    (record,) = verify([name])
    assert record.holds, str(record)
    assert record.measured and all(math.isfinite(number.value) for number in record.measured)


# --- every check can fail: each statement beside a defect, of the library or of the measurement, that it must notice


def times(factor):
    """A measurement that is off by a factor."""
    return lambda measure: lambda *arguments: factor * measure(*arguments)


def transposed(measure):
    return lambda *arguments: measure(*arguments).mT


def shifted(measure):
    def wrong(*arguments):
        A = measure(*arguments)
        return A + 0.1 * torch.eye(A.shape[-1])

    return wrong


def damped(measure):
    return lambda *arguments: measure(*arguments) - 10 * torch.eye(len(measure(*arguments)))


def flattened(measure):
    """As if nothing moved: identities."""
    return lambda *arguments: torch.eye(measure(*arguments).shape[-1]).expand_as(measure(*arguments))


def averaged(measure):
    """The authors' figures: the mean over the batch in the place of each sample."""

    def wrong(*arguments):
        A = measure(*arguments)
        return A.mean(-3, keepdim=True).expand_as(A)

    return wrong


def measured(module, name, mutation):
    return lambda patch: patch.setattr(module, name, mutation(getattr(module, name)))


def wrong_X(patch):
    patch.setattr(
        SeparableHamiltonianField,
        "p_dot",
        lambda self, q, w: (
            -self.operator.mix(torch.eye(len(q[0])) if self.X is None else self.X, self._gradient(q, w.K_q, w.b_q))
        ),
    )


def no_transpose(patch):
    patch.setattr(HamiltonianField, "gradient", lambda self, y, w: self.activation(y @ w.K.mT + w.b) @ w.K.mT)


def not_skew(patch):
    patch.setattr(
        AntisymmetricField,
        "theta",
        lambda self: fields.antisymmetric.AntisymmetricTheta(self.W, self.b.expand(-1, self.features)),
    )


def pair_not_skew(patch):
    right = fields.PairField.p_dot
    patch.setattr(fields.PairField, "p_dot", lambda self, q, w: -right(self, q, w))


def no_gamma(patch):
    right = AntisymmetricField.__init__
    patch.setattr(AntisymmetricField, "__init__", lambda self, *a, **k: right(self, *a, **{**k, "gamma": 0.0}))


def indefinite(patch):
    patch.setattr(fields.SemidefiniteField, "forward", lambda self, y, w: self.activation(w.b - y @ w.C.mT))


def parallel_halves(patch):
    """q moves by the old p."""

    def step(self, field, state, theta_j, h):
        moved = [s.clone() for s in state]
        for part, velocity, length in self.shears(field, theta_j, h):
            moved[part] = moved[part] + length * velocity(state[1 - part])
        return tuple(moved)

    patch.setattr(schemes.SplittingScheme, "step", step)


def at_rest(patch):
    patch.setattr(SecondOrderField, "enter", lambda self, y, p_dot, h: (torch.zeros_like(y), y))


def no_inverse(patch):
    patch.setattr(
        schemes.SplittingScheme, "inverse", lambda self, field, state, theta_j, h: self.step(field, state, theta_j, -h)
    )


def scheme_step(scheme, wrong):
    return lambda patch: patch.setattr(scheme, "step", wrong)


def half_a_step(scheme):
    right = scheme.step
    return scheme_step(scheme, lambda self, field, state, theta_j, h: right(self, field, state, theta_j, h / 2))


def growing(scheme):
    right = scheme.step
    return scheme_step(scheme, lambda self, *a: tuple(1.01 * s for s in right(self, *a)))


def wrong_residual(patch):
    patch.setattr(fields.ResidualField, "forward", lambda self, y, w: torch.sin(y @ w.K.mT + w.b))


def wrong_probabilities(patch):
    right = Task.probabilities
    patch.setattr(Task, "probabilities", lambda self, scores: right(self, 1.001 * scores))


def one_scaling(patch):
    patch.setattr(
        learning,
        "smoothness",
        lambda flow, scaling="depth": flow.h**0.5 * flow.field.theta()[0].diff(dim=0).square().sum(),
    )


def one_parameter_more(patch):
    for name in ("h1", "h2", "resnet"):
        right = getattr(lv.zoo, name)
        patch.setattr(lv.zoo, name, lambda n, *a, right=right, **k: right(n + 2, *a, **k))


MUTATIONS = {
    "residual field": (wrong_residual, "p1-residual", "p1-3.7"),
    "Euler with half the step": (half_a_step(schemes.ForwardEuler), "p1-limit"),
    "rotation": (
        measured(p1_propagation, "example_1", lambda f: lambda name: f("collapse" if name != "collapse" else "spread")),
        "p1-example-1-spread",
        "p1-example-1-collapse",
        "p1-example-1-rotation",
    ),
    "RK4 with half the step": (half_a_step(schemes.RK4), "p1-3.6", "p1-rk4-limit"),
    "RK4 that grows": (growing(schemes.RK4), "p3-energy"),
    "shifted Jacobian, P1": (
        measured(p1_propagation, "field_matrix", shifted),
        "p1-3.11",
        "p1-imaginary",
        "p1-augmented",
    ),
    "damped Jacobian, P1": (measured(p1_propagation, "field_matrix", damped), "p1-3.8"),
    "nothing moves, P1": (measured(p1_propagation, "flow_matrix", flattened), "p1-lemma-1"),
    "W not skew": (not_skew, "p1-4.12", "p3-parameters", "p1-parameters"),
    "indefinite": (indefinite, "p1-semidefinite"),
    "old p": (parallel_halves, "p1-verlet-limit", "p1-stormer-limit", "p1-leapfrog-limit", "p2-ms3"),
    "midpoint with half the step": (half_a_step(schemes.Midpoint), "p1-midpoint-limit"),
    "step that grows": (growing(schemes.ForwardEuler), "p1-euler-unstable"),
    "no gamma": (no_gamma, "p1-gamma", "p2-assumptions"),
    "start": (at_rest, "p1-leapfrog-start"),
    "inverse": (no_inverse, "p1-reverse"),
    "probabilities": (wrong_probabilities, "p1-hypothesis"),
    "penalty": (one_scaling, "p1-smoothness", "p3-13"),
    "K for K^T": (no_transpose, "p2-h1", "p3-gradient", "p2-ms2"),
    "pair": (pair_not_skew, "p2-ms1"),
    "parameters": (one_parameter_more, "p2-parameters"),
    "X for X^T": (wrong_X, "p2-h2"),
    "transposed layers": (measured(p2_sensitivity, "layer_jacobians", transposed), "p2-lemma-symplectic"),
    "damped": (
        measured(p2_sensitivity, "backward_sensitivity", times(0.1)),
        "p2-theorem-1",
        "p2-theorem-1-any-J",
        "p2-theorem-2",
        "p2-lemma-flow",
    ),
    "averaged": (measured(p2_sensitivity, "backward_sensitivity", averaged), "p2-batch-mean"),
    "nothing moves": (
        measured(p2_sensitivity, "backward_sensitivity", flattened),
        "p2-theorem-1-dissipation",
        "p2-appendix-iii",
    ),
    "layers that grow": (measured(p2_sensitivity, "layer_jacobians", times(1.001)), "p2-appendix-iii-det"),
    "eps": (
        measured(p2_sensitivity, "appendix_iii", lambda f: lambda eps=1.0, T=200.0: f(eps**0.9, T)),
        "p2-appendix-iii-scaling",
    ),
    "layers that shrink, wider": (
        measured(p2_wider, "layer_jacobians", times(0.99)),
        "p2-det-one",
        "p2-det-euler",
        "p2-ms1-not-symplectic",
    ),
    "damped, wider": (
        measured(p2_wider, "backward_sensitivity", times(0.1)),
        "p2-lower-bound",
        "p2-pairs",
        "p2-full-state",
    ),
    "exploded, wider": (measured(p2_wider, "backward_sensitivity", times(20.0)), "p2-upper-bound"),
    "transposed Jacobian, P3": (measured(p3_unified, "field_matrix", transposed), "p3-16", "p3-lemma-2"),
    "shifted Jacobian, P3": (measured(p3_unified, "field_matrix", shifted), "p3-lemma-3", "p3-lemma-4", "p3-marginal"),
    "transposed sensitivity, P3": (measured(p3_unified, "backward_sensitivity", transposed), "p3-5"),
    "transposed product, P3": (measured(p3_unified, "flow_matrix", transposed), "p3-14"),
    "growth denied": (lambda patch: patch.setattr(proved, "log_growth", lambda *a: 0.9 * growth(*a)), "proved-growth"),
    "a region too small": (
        lambda patch: patch.setattr(schemes.SplittingScheme, "amplification", lambda self, z: z.abs()),
        "proved-amplification",
    ),
    "radii ten times too large": (measured(proved, "certified_radius", times(10.0)), "proved-radius"),
    "whatever runs is known": (
        lambda patch: (
            patch.setattr(lv.analysis.certificates.flows, "unknown_run", lambda flow: ""),
            patch.setattr(lv.analysis.certificates.flows, "unknown_velocities", lambda field: ""),
        ),
        "proved-unknown",
    ),
    "derivatives taken at their word": (
        lambda patch: (
            patch.setattr(lv.analysis.certificates.measured, "derivative_fact", lambda *a: None),
            patch.setattr(lv.analysis.certificates.flows, "activation_facts", lambda *a, **k: ()),
        ),
        "proved-derivative",
    ),
    "an energy that the step gains": (growing(schemes.DiscreteGradient), "proved-passivity", "proved-lossless"),
    "damped, with damping": (
        measured(dissipation, "backward_sensitivity", times(1e-3)),
        "proved-damping",
        "proved-volume",
    ),
}
KILLED = [(mutation, name) for mutation, (_, *names) in MUTATIONS.items() for name in names]


@pytest.mark.parametrize("mutation, name", one_in(4, KILLED))
def test_the_check_fails_where_something_is_wrong(mutation, name, monkeypatch):
    MUTATIONS[mutation][0](monkeypatch)
    (record,) = verify([name])
    assert not record.holds, str(record)


def test_every_check_has_been_seen_to_fail():
    assert {name for _, name in KILLED} == set(STATEMENTS)


# --- what a record says


def check_of(*holding, printed=(), correction=""):
    return Statement("name", "source", "text", lambda: Finding(holding, printed), correction).verify()


YES, NO = at_most("yes", 1.0, 2.0), at_most("no", 3.0, 2.0)


def test_a_number_lies_in_its_closed_interval_and_nan_in_none():
    assert Number("x", 1.0, 1.0, 1.0).inside and at_least("x", 1.0, 1.0).inside and near("x", 1.1, 1.0, 0.2).inside
    assert not at_most("x", 1.0 + 1e-15, 1.0).inside and not at_least("x", -math.inf, 0.0).inside
    assert not any(Number("x", math.nan, low, high).inside for low, high in ((-1, 1), (-math.inf, math.inf)))
    numbers = (Number("x", 0, 3, 3), NO, at_least("x", 0, 1e-9), near("x", 0, 1, 0.5), near("x", 0, 1, 2**-30))
    assert [n.expected for n in numbers] == ["= 3", "<= 2", ">= 1e-09", "in [0.5, 1.5]", "= 1 +- 9.3e-10"]


@pytest.mark.parametrize(
    "record, holds",
    [
        (check_of(YES), True),
        (check_of(YES, NO), False),
        (check_of(), False),  # nothing measured
        (check_of(YES, printed=(NO,), correction="so"), True),
        (check_of(YES, printed=(YES, NO), correction="so"), True),
        (check_of(YES, printed=(YES,), correction="so"), False),  # the printed statement was not seen to fail
        (check_of(NO, printed=(NO,), correction="so"), False),
        (check_of(YES, correction="so"), False),
        (check_of(YES, printed=(NO,)), False),  # fails as printed, and no correction is given
    ],
)
def test_the_verdict(record, holds):
    assert record.holds == holds


def test_a_corrected_statement_shows_both():
    record = check_of(YES, printed=(NO,), correction="so")
    assert str(record) == "source: text: as printed: fails (no 3 (<= 2)); corrected: so: yes 1 (<= 2)"
    assert str(check_of(YES)) == "source: text: yes 1 (<= 2)"


def test_a_record_is_json_without_infinities():
    text = json.dumps(check_of(Number("x", math.nan), YES).as_dict(), allow_nan=False)
    read = json.loads(text)
    assert read["measured"][0] == {"what": "x", "value": None, "low": None, "high": None}
    assert (read["holds"], read["name"], read["expected"]) == (False, "name", "x a number; yes <= 2")


def test_names_are_unique_and_say_which_paper():
    with pytest.raises(ValueError, match=r"'p1-3\.7' exists already"):
        statement("p1-3.7", "source", "text")(lambda: YES)
    assert all(name.startswith(("p1-", "p2-", "p3-", "proved-")) for name in STATEMENTS)
    assert all(s.text and s.source.startswith(("P1", "P2", "P3", "P4", "certificates")) for s in STATEMENTS.values())


def test_selection_by_name_paper_and_not_at_all():
    assert [s.name for s in select(["p3-16", "p1-3.7"])] == ["p1-3.7", "p3-16"]
    assert {s.name for s in select(["p2"])} == {name for name in STATEMENTS if name.startswith("p2-")}
    assert len(select()) == len(STATEMENTS) == 70
    with pytest.raises(ValueError, match="did you mean 'p1-lemma-1'"):
        select(["p1-lema-1"])


def test_checks_leave_the_default_dtype_and_the_global_generator_alone(monkeypatch):
    state = torch.get_rng_state()
    assert next(verify(["p2-theorem-2"])).holds
    assert torch.get_default_dtype() == torch.float32 and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyError):
        Statement("name", "source", "text", lambda: {}["defect"]).verify()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("correction", ["", "so"])
def test_a_check_that_breaks_off_fails_and_says_why(correction):
    record = Statement("name", "source", "text", lambda: 1 / 0, correction).verify()
    assert not record.holds and "ZeroDivisionError: division by zero nan (a number)" in str(record)


def test_float64_is_what_they_compute_in():
    kinds = []
    Statement("name", "source", "text", lambda: kinds.append(torch.zeros(1).dtype) or Finding((YES,))).verify()
    assert kinds == [torch.float64]


def test_what_fails_as_printed():
    """The list of the papers' slips, so that none is forgotten or added unseen."""
    assert {s.name for s in STATEMENTS.values() if s.correction} == {
        "p1-3.8",
        "p1-lemma-1",
        "p1-leapfrog-start",
        "p3-lemma-4",
        "p3-marginal",
    }


THEORY = Path(__file__).parent.parent / "docs" / "theory"


def test_the_pages_name_checks_that_exist_and_all_that_are_about_a_law():
    names = re.compile(r"`((?:p[123]|proved)-[^`]+)`")
    named = {name for page in THEORY.glob("*.md") for name in names.findall(page.read_text())}
    assert named <= set(STATEMENTS)
    definitions = {"p1-residual", "p1-4.12", "p1-hypothesis", "p1-smoothness", "p3-13", "p3-energy", "p3-gradient"}
    counts = {"p1-parameters", "p2-parameters", "p3-parameters"}
    assert set(STATEMENTS) - named == definitions | counts


def test_the_page_lists_what_fails_as_printed():
    rows = re.findall(r"^\| `(p[^`]+)` \|", (THEORY / "index.md").read_text(), re.M)
    assert rows == [s.name for s in select() if s.correction]
