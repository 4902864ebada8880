"""`liouville sensitivities`: what it prints is what the analysis says, and what it cannot measure has a sentence."""

from __future__ import annotations

import json

import pytest
import torch

import liouville as lv
from liouville.analysis import backward_sensitivity, lyapunov_spectrum, norms
from liouville.runs import Run


def test_numbers_are_those_of_the_analysis(liouville, trained):
    result = liouville("sensitivities", trained[0], "--json", "--samples", 7)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    run = Run.open(trained[0])
    network = run.network().double()
    y = network.lift(run.plan.load().x_train[:7].double())
    flow = network.body
    assert (found["T"], found["layers"]) == (flow.T, flow.layers)
    assert torch.equal(torch.tensor(found["norms"]).double(), norms(backward_sensitivity(flow, y)).two.float().double())
    exponents = torch.tensor(found["exponents"], dtype=torch.float64)
    assert torch.allclose(exponents, lyapunov_spectrum(flow, y), rtol=0, atol=1e-15)
    assert exponents.sum(-1).abs().max() < 1e-13  # volume


def test_both_tables_are_printed_and_both_panels_drawn(liouville, trained, tmp_path):
    pytest.importorskip("matplotlib")
    result = liouville("sensitivities", trained[0], "--figure", tmp_path / "spectrum.png")
    assert result.code == 0 and result.err == f"wrote {tmp_path / 'spectrum.png'}\n"
    assert "over 50 samples" in result.out and "Lyapunov exponents, per unit of time" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("1", "2", "4")] == ["1", "2", "4", "1", "2", "4"]
    assert (tmp_path / "spectrum.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--figure", "a.pdf"), "ends in .png or .svg"),
        (("--figure", "nowhere/a.png"), "there is no folder nowhere"),
        (("-d", "points=3"), "belongs to --data"),
        (("--samples", "0"), "--samples"),
        (("--data", "digit"), "digits"),
    ],
)
def test_bad_words_have_a_sentence(liouville, trained, words, said):
    result = liouville("sensitivities", trained[0], *words)
    assert result.code == 2 and said in result.err and "Traceback" not in result.err


def test_what_has_no_input_or_several_flows_is_refused(liouville, tmp_path):
    lv.save(lv.zoo.h2(4, 2, 1.0), tmp_path / "flow.safetensors")
    result = liouville("sensitivities", tmp_path / "flow.safetensors")
    assert result.code == 2 and "no inputs to measure at" in result.err
    body = torch.nn.Sequential(lv.zoo.h2(4, 2, 1.0), lv.Connector(4, 6), lv.zoo.h2(6, 2, 1.0))
    lv.save(lv.Network(lv.Lift(4, 2), body, torch.nn.Linear(6, 2)), tmp_path / "two.safetensors")
    result = liouville("sensitivities", tmp_path / "two.safetensors")
    assert result.code == 2 and "several flows" in result.err
    result = liouville("sensitivities", tmp_path / "none")
    assert result.code == 2 and "there is no run folder or model file" in result.err
