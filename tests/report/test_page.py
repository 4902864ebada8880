"""The report: one file that needs nothing, with every string escaped, for every kind of run."""

import base64
import dataclasses
import html.parser
import itertools
import json
import re

import pytest
import torch

import liouville as lv
from liouville import runs
from liouville.analysis import Claim
from liouville.report.page import Record, page
from liouville.report.page.blocks import Chart, Motion
from liouville.report.page.document import _sections
from liouville.report.page.gradients import norms_of
from liouville.report.page.motion import motion
from liouville.report.page.plane import regions
from liouville.report.page.words import in_words

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")

EVIL = "<script>alert('x')</script>&\"</script>"
LIMIT = 6_000_000  # bytes of a report


class Reader(html.parser.HTMLParser):
    """Tags, what they refer to, and the text outside scripts, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids, self.labels, self.words, self.inside = [], [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.addresses += [v for k, v in given.items() if k in ("src", "href", "action", "data")]
        self.ids += [given["id"]] if "id" in given else []
        self.inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is None:
            self.words.append(data)


def split_of(classes=2, shape=(2,), names=None, samples=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((samples, *shape), generator=generator)
    y = torch.arange(samples) % classes if classes else x.flatten(1)[:, :1] ** 2
    more = {} if classes else {"target_offset": torch.tensor(5.0), "target_scale": torch.tensor(3.0), "target": EVIL}
    return lv.data.Split(x, y, x + 0.1, y, "data", classes, label_names=names, **more)


def record_of(split, model="h2", features=4, layers=3, **more):
    plan = runs.Plan(
        data=None, model=model, features=features, layers=layers, T=1.0, settings=lv.train.Settings(epochs=2)
    )
    return runs.train(dataclasses.replace(plan, **more), split).record()


KINDS = {
    "two classes of the plane": lambda: record_of(split_of(2)),
    "ten classes of the plane": lambda: record_of(split_of(10, samples=60)),
    "three classes, more inputs": lambda: record_of(split_of(3, (5,)), features=6),
    "two features": lambda: record_of(split_of(2), model="h1", features=2),
    "a regression": lambda: record_of(split_of(0, (3,)), features=6),
    "images in two flows": lambda: record_of(split_of(10, (1, 8, 8)), features=(4, 8), layers=2),
    "no guarantee": lambda: record_of(split_of(2), model="resnet"),
}


@pytest.fixture(scope="module", params=list(KINDS))
def record(request):
    return KINDS[request.param]()


def test_a_page_is_whole_small_repeatable_and_needs_nothing(record):
    text = page([record])
    assert text == page([record]) and len(text.encode()) < LIMIT
    read = Reader(text)
    assert not [a for a in read.addresses if not a.startswith(("#", "data:"))]
    assert {"#" + name for name in read.ids} >= {a for a in read.addresses if a.startswith("#")}
    assert len(read.ids) == len(set(read.ids))
    assert [tag for tag, given in read.tags if tag == "h1"] == ["h1"]
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(given.get("alt") for tag, given in read.tags if tag == "img")
    named = {given["for"] for tag, given in read.tags if tag == "label"}
    assert all(given["id"] in named for tag, given in read.tags if tag == "input")
    assert all(given.get("aria-label") for _, given in read.tags if "chart" in str(given.get("class")))


def test_figures_are_what_plotly_takes(record):
    from plotly.graph_objects import Figure

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return "#123456" if isinstance(value, str) and re.fullmatch(r"@(ink|soft|grid|c\d+/\d+)", value) else value

    figures = []
    for section in _sections(record, norms_of(record)):
        for block in section.blocks:
            figures += [block.figure] if isinstance(block, Chart) else []
            figures += [f for f in (block.plane, block.space) if f] if isinstance(block, Motion) else []
    assert len(figures) >= 3
    for figure in figures:
        Figure(plain(figure))  # refuses a name or a value that plotly does not know


def test_the_slider_has_the_features_of_the_network_at_both_ends():
    record = KINDS["two classes of the plane"]()
    (motion,) = [b for s in _sections(record, norms_of(record)) for b in s.blocks if isinstance(b, Motion)]
    points = torch.frombuffer(bytearray(base64.b64decode(motion.points)), dtype=torch.float32)
    points = points.view(len(motion.labels), sum(motion.sizes), 3)
    network, split = record.network, record.split
    order = torch.cat([(split.y_test == k).nonzero().flatten() for k in range(2)])
    with torch.no_grad():
        last = network.features(split.x_test)[order]
        normal = network.head.weight[0] / network.head.weight.norm()
        across = (last @ normal).float()
    assert torch.allclose(points[-1, :, 0], across, atol=1e-5 * float(last.abs().max()))
    assert motion.labels[0].startswith("layer 0 of 3") and motion.labels[-1].startswith("layer 3 of 3")


@pytest.mark.parametrize("classes, listed", [(12, True), (50, False)])
def test_a_legend_has_all_names_or_none_if_they_would_fill_the_figure(classes, listed):
    record = record_of(split_of(classes, samples=2 * classes))
    for section in (regions(record), motion(record)):
        (block,) = section.blocks
        traces = block.figure["data"] if isinstance(block, Chart) else block.plane["data"]
        points = [trace for trace in traces if trace.get("name") in record.names]
        assert len(points) == classes
        assert {trace.get("showlegend", True) for trace in points} == {listed}
        assert ("Point at a mark for its class" in section.lead) is not listed
        assert all(trace.get("hoverinfo") != "skip" for trace in points)


def test_strings_of_others_are_text_everywhere():
    record = record_of(split_of(3, names=(EVIL, "b&b", "<i>c</i>")))
    what = {**record.what, "Data": EVIL, EVIL: EVIL}
    facts = dataclasses.replace(record.facts, name=EVIL)
    evil = dataclasses.replace(record, name=EVIL, facts=facts, what=what, use=EVIL, command=EVIL)
    quiet = page([record])
    for text in (page([evil]), page([evil, evil])):
        assert "<script>alert" not in text and text.count("<script>") == quiet.count("<script>")
        assert EVIL in "".join(Reader(text).words)
        for source in re.findall(r'<script type="application/json" data-[a-z]+="[^"]*">(.*?)</script>', text, re.S):
            names = [t.get("name", "") for t in (json.loads(source).get("data") or json.loads(source)["plane"]["data"])]
            assert not [n for n in names if "<" in n]  # plotly takes some HTML


def test_a_run_without_network_or_data_says_so_in_each_section():
    facts = split_of().facts()
    nothing = Record(name="bare", facts=facts, what={"Data": "some"})
    words = "".join(Reader(page([nothing])).words)
    assert words.count("Not applicable") == 6 and "training left no network" in words
    blind = dataclasses.replace(KINDS["two classes of the plane"](), split=None, without_data="the table is away.")
    words = "".join(Reader(page([blind])).words)
    assert words.count("Not applicable: the table is away.") == 3 and "Certificate" in words


def test_a_bound_is_drawn_only_where_it_is_proved():
    proved, unproved = (page([KINDS[k]()]) for k in ("two classes of the plane", "no guarantee"))
    assert "proved: at least 1" in proved and "It is proved never to fall below 1" in proved
    assert "proved: at least 1" not in unproved and "For this network no proof keeps it" in unproved


def test_a_comparison_names_the_best_run_and_keeps_small():
    record = KINDS["two classes of the plane"]()
    good, bad = (
        dataclasses.replace(record, name=name, metrics={**record.metrics, "test_accuracy": value})
        for name, value in (("good", 0.9), ("bad", 0.6))
    )
    text = page([bad, good])
    assert "The best of 2 runs on the test part of data: good, 90.00 %" in text
    for number in (5, 12):
        text = page([dataclasses.replace(record, name=f"run-{k}") for k in range(number)])
        assert len(text.encode()) < LIMIT and all(f"run-{k}" in text for k in range(number))
    other = dataclasses.replace(bad, facts=dataclasses.replace(bad.facts, name="other"))
    assert "are not compared" in page([good, other])


def test_every_claim_of_a_certificate_has_words_of_its_own():
    record = KINDS["two classes of the plane"]()
    budgeted = record_of(split_of(2), budget=20.0)
    for claim in (*record.certificate.claims, *budgeted.certificate.claims):
        said = in_words(claim)
        assert said.endswith(".") and said != f"{claim.statement}." and "None" not in said and "–" not in said, claim
    broken = Claim("lower bound", "a law", "broken", note="the weights are not finite")
    assert in_words(broken) == "The weights are not finite."


def test_html_writes_beside_the_model_and_asks_for_a_place_elsewhere(tmp_path):
    split = split_of()
    plan = runs.Plan(data=None, layers=2, T=1.0, settings=lv.train.Settings(epochs=1))
    run = runs.train(plan, split, out=tmp_path / "run")
    assert lv.report.html(run) == tmp_path / "run" / "report.html"
    assert lv.report.html(run, run, path=tmp_path / "both.html").exists()
    for given in ((run, run), (runs.train(plan, split),)):
        with pytest.raises(ValueError, match="give path=FILE"):
            lv.report.html(*given)
    read = lv.report.html(runs.Run.open(tmp_path / "run"), path=tmp_path / "read.html").read_text()
    assert "the data were not read" in read and "Use the model" in read


def test_colours_show_on_their_pages_in_colour_and_in_grey():
    """WCAG 2: at least 3 for marks, 4.5 for text; regions of two classes differ in lightness."""
    from liouville.report import style

    css = (lv.report.page.document.resources.files("liouville.report.page") / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+);", part)) for part in css.split("@media (prefers-color-scheme")[:2]
    )
    for paper, number, on_dark in ((light["paper"], 6, False), (light["paper"], 10, False), (dark["paper"], 10, True)):
        assert min(contrast(c, paper) for c in style.colours(number, dark=on_dark)) >= 3
    assert min(contrast(look.colour, "#ffffff") for look in style.NETWORKS.values()) >= 3
    assert contrast(style.GREY, "#ffffff") >= 4.5
    assert all(contrast(page[word], page["paper"]) >= 4.5 for page in (light, dark) for word in ("ink", "soft", "link"))
    regions = style.blend(torch.eye(2, dtype=torch.float64))
    weights = torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    first, second = (regions**2.2 @ weights).tolist()
    assert abs(first - second) > 0.2


def contrast(a, b):
    def luminance(colour):
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
