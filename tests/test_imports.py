"""`import liouville` needs torch only, and is quick."""

import json
import statistics
import subprocess
import sys

import pytest

EXTRAS = ("sklearn", "scipy", "pandas", "matplotlib", "plotly", "click", "rich", "pooch", "safetensors", "lightning")

SCRIPT = """
import json, sys, time
times = [time.process_time()]  # the processor's: a busy machine is not a slow import
import torch
before = set(sys.modules)
times.append(time.process_time())
import liouville
liouville.classifier, liouville.Flow, liouville.Stored  # names load when first used: make them load
times.append(time.process_time())
print(json.dumps([times, sorted({m.split(".")[0] for m in set(sys.modules) - before})]))
"""


def fresh(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def imported():
    return [fresh(SCRIPT) for _ in range(3)]


def test_import_loads_nothing_but_torch_and_the_standard_library(imported):
    allowed = {"liouville", "torch", "numpy", "__main__"} | set(sys.stdlib_module_names)
    for _, modules in imported:
        assert not set(modules) & set(EXTRAS)
        assert not [m for m in modules if m not in allowed]


def test_import_takes_less_than_300_ms_on_top_of_torch_or_on_a_slow_machine_a_third_of_torchs_time(imported):
    torchs, ours = (statistics.median(times[k + 1] - times[k] for times, _ in imported) for k in (0, 1))
    assert ours < max(0.3, torchs / 3)


def test_extras_are_not_loaded_by_building_and_running_a_network():
    script = f"""
import json, sys, torch
import liouville as lv
before = set(sys.modules)
lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0)(torch.randn(3, 2)).sum().backward()
print(json.dumps(sorted(set(sys.modules) & set({EXTRAS!r}))))
"""
    assert fresh(script) == []


def test_every_public_name_can_be_reached_and_unknown_ones_are_refused():
    import liouville as lv

    for name in lv.__all__:
        assert getattr(lv, name) is not None
    assert set(lv.__all__) <= set(dir(lv))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = lv.Nonsense


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("liouville.plan", ("Plan", "DEVICES", "DTYPES", "INITS", "LIFTS", "engine", "model_options")),
        ("liouville.recipes", ("PRESETS", "recipe")),
    ],
)
def test_what_has_moved_is_importable_for_one_version_and_says_so(module, names, monkeypatch):
    import importlib

    import liouville as lv

    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{module} has moved"):
        moved = importlib.import_module(module)
    for name in names:
        assert getattr(moved, name) is lv.runs.__dict__.get(name) or getattr(moved, name) is getattr(
            lv.runs.choices, name
        )
    assert moved is getattr(lv, module.rpartition(".")[2])
