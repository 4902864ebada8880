"""Facts say of data what is needed to use a network, and come back from JSON as they were."""

import dataclasses
import json

import pytest
import torch

import liouville as lv
from liouville.facts import Facts
from runs import own

SPLITS = {
    "classes": own.split,
    "targets": lambda: own.split("targets"),
    "swiss-roll": lambda: lv.data.load("swiss-roll", points=40),
    "peaks": lambda: lv.data.load("peaks", train=40, test=10),
}


@pytest.mark.parametrize("make", SPLITS.values(), ids=SPLITS)
def test_facts_come_back_from_json(make):
    split = make()
    facts = split.facts()
    assert Facts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts == make().facts()
    assert facts.shape == split.x_train.shape[1:] and (facts.train_samples, facts.test_samples) == (
        len(split.x_train),
        len(split.x_test),
    )
    for name in ("offset", "scale", "target_offset", "target_scale"):
        value = getattr(split, name)
        assert facts.tensor(name) is None if value is None else torch.equal(facts.tensor(name), value.double())


@pytest.mark.parametrize("part", ["x_train", "y_train", "x_test", "y_test"])
def test_the_fingerprint_sees_every_number(part):
    split = own.split("targets")
    tensor = getattr(split, part)
    for place in (0, -1):
        other = tensor.clone()
        other.view(-1)[place] += 1e-3
        assert dataclasses.replace(split, **{part: other}).facts().fingerprint != split.facts().fingerprint


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": 0}, "either classes or outputs are 0"),
        ({"outputs": 2}, "either classes or outputs are 0"),
        ({"classes": 1}, "classes must be 0 for a regression, or a number of classes, got 1"),
        ({"label_names": ("a",)}, "1 label_names for 2 classes"),
        ({"label_names": ("a", "\x1b[2J")}, "must be text of printable characters"),
        ({"column_names": ("a", "a")}, "column_names must be different names, one for each of 2 columns"),
        ({"column_names": ("a",)}, "column_names must be different names, one for each of 2 columns"),
        ({"offset": 1.0}, "offset and scale belong together"),
        ({"offset": (1.0, 1.0), "scale": (1.0, 0.0)}, "scale has a 0"),
        ({"offset": (1.0, 1.0, 1.0), "scale": 1.0}, "offset must be a number, or numbers for samples of 2, got 3"),
        ({"shape": ()}, "shape must be the sizes of one sample"),
    ],
)
def test_facts_that_do_not_fit_each_other_are_refused(changes, sentence):
    good = {"name": "two", "shape": (2,), "classes": 2}
    Facts(**good)
    with pytest.raises(ValueError, match=sentence):
        Facts(**good | changes)


def test_two_classes_have_one_score_or_two():
    facts = Facts("two", (2,), classes=2)
    one, both = torch.tensor([[-1.0], [3.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert facts.answers(one) == facts.answers(both) == [0, 1]
    for outputs in (one, both):
        assert torch.allclose(facts.probabilities(outputs).sum(1), torch.ones(2))
    with pytest.raises(ValueError, match=r"2 classes, but a network of 3 output\(s\)"):
        facts.answers(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="two has samples of shape"):
        facts.transformed(torch.zeros(1, 3))
