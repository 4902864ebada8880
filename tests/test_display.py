"""What notebooks show: small tables, whose strings are text."""

import html.parser

import pytest
import torch

import liouville as lv
from liouville.display import table

EVIL = "<script>alert(1)</script>&\"'"


class Reader(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags = [], "", set()
        self.feed(text)
        assert self.open == [], "a tag is left open"

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def shown():
    """One of each, with names that would run if they were HTML."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 2), torch.arange(40) % 2
    split = lv.data.Split(x, y, x, y, EVIL, 2, label_names=(EVIL, "b"))
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=3, T=1.0)
    history = lv.train.fit(network, split, lv.train.Settings(epochs=2))
    network.facts = split.facts()
    certificate = lv.analysis.certify(network, x[:8])
    named = type(certificate)(EVIL, certificate.claims)
    return {"split": split, "network": network, "history": history, "certificate": named}


def test_every_object_is_a_small_table_of_text(shown):
    for name, value in shown.items():
        text = value._repr_html_()
        read = Reader(text)
        assert read.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"} and len(text) < 10_000
        assert EVIL in read.words or name == "history"


def test_the_tables_say_what_the_objects_know(shown):
    words = {name: Reader(value._repr_html_()).words for name, value in shown.items()}
    weights = sum(p.numel() for p in shown["network"].parameters())
    assert f"weights{weights}" in words["network"] and "3 layers of SymplecticEuler" in words["network"]
    assert f"{shown['history'].metrics['test_loss']:.4g}" in words["history"] and "2 epochs" in words["history"]
    assert "no claim is broken" in words["certificate"] and "lower bound" in words["certificate"]
    assert "40" in words["split"] and "int64" in words["split"] and "classes: " in words["split"]


def test_objects_that_are_not_finished_are_shown_too():
    assert "0 epochs; not ended" in Reader(lv.train.History("r2")._repr_html_()).words
    x = torch.randn(4, 2)
    assert "real targets" in Reader(lv.data.Split(x, x, x, x, "line", 0)._repr_html_()).words
    bare = lv.Network(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(2, 1))
    assert "weights3" in Reader(bare._repr_html_()).words


def test_a_table_escapes_every_string():
    read = Reader(table(EVIL, (EVIL, EVIL), [(EVIL, EVIL)], EVIL))
    assert read.words == EVIL * 6 and "script" not in read.tags
