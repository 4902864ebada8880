"""Bad input: exit code 2, one line on standard error that says what, expected, got and what to do, no traceback."""

import errno
import sys
import warnings
from pathlib import Path

import pytest

import liouville as lv
import liouville.runs
from liouville.__main__ import main
from liouville.cli.errors import guarded
from liouville.data import SOURCES
from liouville.runs import PRESETS, Run

MODELS = "h1, h2, ms1, ms2, ms3, antisymmetric, verlet, leapfrog, midpoint, resnet"
SCHEMES = (
    "ForwardEuler, SymplecticEuler, Verlet, Yoshida4, LeapfrogMidpoint, RK4, ImplicitMidpoint, "
    "ImplicitSymplecticEuler, DiscreteGradient, Momentum, Coupled"
)


def assert_one_line(result, message, code=2):
    assert result.code == code
    assert result.err == f"liouville: error: {message}\n"
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--features 5",
            "features must be even to split y into (p, q), got 5; add a zero feature with --features 6, or use --model "
            "antisymmetric.",
        ),
        ("--T 0", "T must be a positive, finite time of at most 3.4e+38, got 0.0."),
        ("--T -2", "T must be a positive, finite time of at most 3.4e+38, got -2.0."),
        ("--layers 0", "layers must be at least 1, got 0; a network without layers is only its head."),
        ("--levels 0", "levels must be at least 1, got 0."),
        (
            "--levels 4",
            "4 levels end with 8 times the layers they began with, so layers must be a multiple of 8, got 4.",
        ),
        ("--levels 2 --validation 0", "a level ends by its validation loss; give validation a share above 0."),
        (
            "--target-score 2",
            "target_score is a validation score of at most 1, and needs a validation share above 0; got 2.0 with "
            "--validation 0.1.",
        ),
        (
            "--head-smoothness 1",
            "the head reads 4 values, which are not a square image with the 4 channels of the last flow; leave "
            "--head-smoothness out.",
        ),
        ("--model H3", f"unknown model 'H3'; did you mean 'h2'? Known models: {MODELS}."),
        ("--levels 61", "levels must be at most 60, each twice as deep as the one before, got 61."),
        ("--threads 100000", "threads must be at most 1024, got 100000."),
        (
            "--data swissroll",
            "unknown data set 'swissroll'; did you mean 'swiss-roll'? Known data sets: swiss-roll, double-moons, "
            "double-circles, ellipses, peaks, digits, breast-cancer, wine, iris, diabetes, mnist. "
            "A table of your own is --data FILE.csv --target COLUMN.",
        ),
        ("--scheme varlet", f"unknown scheme 'varlet'; did you mean 'Verlet'? Known schemes: {SCHEMES}."),
        (
            "--activation thanh",
            "unknown activation 'thanh'; did you mean 'tanh'? Known activations: tanh, relu, softplus, logistic.",
        ),
        (
            "-d pionts=100",
            "unknown option 'pionts' of data set 'swiss-roll'; did you mean 'points'? Valid options: version, points, "
            "noise, test, seed, dtype, root.",
        ),
        ("-d points=many", "the data option points expects a whole number, got 'many'."),
        ("-d noise=little", "the data option noise expects a number, got 'little'."),
        ("-d points", "-d expects NAME=VALUE, got 'points'; for example -d points=2000."),
        ("-d points=3", "points must be a multiple of 2 of at least 8, got 3."),
        ("-d dtype=float64", "the floating-point type is chosen with --dtype, not with -d dtype."),
        (
            "--model ms2 --scheme SymplecticEuler",
            "SymplecticEuler needs a field that splits into (p, q), each moved only by the other; got "
            "AntisymmetricField. Use ForwardEuler, LeapfrogMidpoint, RK4 or ImplicitMidpoint, or a PartitionedField "
            "such as SeparableHamiltonianField.",
        ),
        ("--gamma 0.1", "the model 'h2' has no option 'gamma'; it belongs to ms2, antisymmetric, midpoint."),
        ("--J full", "the model 'h2' has no option 'J'; it belongs to h1."),
        (
            "--model leapfrog --engine fused",
            "there is no fused kernel for SymplecticEuler on SecondOrderField; there is one on the CPU for "
            f"fields with tanh or relu: {'; '.join(lv.kernels.supported())}. Use --engine stored or --engine "
            "reversible.",
        ),
        (
            "--model h1 --engine reversible",
            "ForwardEuler has no inverse, so Reversible cannot run it; use --engine checkpointed, or a "
            "reversible scheme: SymplecticEuler, Verlet, Yoshida4, LeapfrogMidpoint, ImplicitMidpoint, "
            "ImplicitSymplecticEuler, DiscreteGradient or Coupled.",
        ),
        (
            "--engine store",
            "unknown engine 'store'; did you mean 'stored'? "
            "Known engines: auto, stored, checkpointed, reversible, fused, batch-last.",
        ),
        ("--dtype double", "unknown dtype 'double'; known dtypes: float32, float64, bfloat16."),
        ("--threads 0", "threads must be at least 1, got 0."),
        (
            "--data=",
            f"unknown data set ''; known data sets: {', '.join(SOURCES)}. A table of your own is --data FILE.csv "
            "--target COLUMN.",
        ),
        ("--preset=", f"unknown preset ''; known presets: {', '.join(PRESETS)}."),
        ("--data digits -d image=maybe", "the data option image expects true or false, got 'maybe'."),
        (
            "--init smoth",
            "unknown initialisation 'smoth'; did you mean 'smooth'? Known initialisations: smooth, normal.",
        ),
        ("--lift fornt", "unknown lift 'fornt'; did you mean 'front'? Known lifts: front, ends, p, q, linear."),
        ("--preset hdn", "unknown preset 'hdn'; did you mean 'hdnn'? Known presets: " + ", ".join(PRESETS) + "."),
        ("--preset pixelwise", "the preset 'pixelwise' is for images, got 'swiss-roll'; leave --preset out."),
        ("--lr -1", "lr must be positive and finite, got -1.0."),
        ("--validation 1", "validation must lie in [0, 1), got 1.0."),
        ("--dropout 1", "the dropout probability must lie in [0, 1), got 1.0."),
        ("--like nowhere", "there is no run folder nowhere."),
        ("--like nowhere --preset hdnn", "--like and --preset both say where to start from; give one of them."),
    ],
    ids=lambda value: value if str(value).startswith("-") else "",
)
def test_a_word_that_does_not_fit_is_answered_in_one_sentence(train, tmp_path, words, message):
    assert_one_line(train(*words.split()), message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --layer 3", "there is no option '--layer'; did you mean '--layers'? Try `liouville train --help`."),
        ("train --zzz 3", "there is no option '--zzz'. Try `liouville train --help`."),
        ("train --layers x", "'x' is not a whole number, nor several with commas between. Try"),
        ("train --lr fast", "'fast' is not a valid float. Try `liouville train --help`."),
        ("train more", "Got unexpected extra argument (more). Try `liouville train --help`."),
        ("predct", "there is no command 'predct'; did you mean 'predict'? Try `liouville --help`."),
        ("predict RUN", "Missing argument 'INPUT'. Try `liouville predict --help`."),
    ],
)
def test_bad_usage_is_one_line_too(liouville, words, message):
    result = liouville(*words.split())
    assert result.code == 2 and result.err.count("\n") == 1 and result.out == ""
    assert result.err.startswith("liouville: error: ") and message in result.err


def test_an_existing_run_is_never_overwritten_silently(train, tmp_path):
    assert train().code == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    message = f"{tmp_path / 'run'} exists already; choose another --out, or replace it with --force."
    assert_one_line(train(), message)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_force_replaces_nothing_but_runs(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    message = f"{tmp_path / 'run'} is not a run, so --force leaves it alone; choose another --out."
    assert_one_line(train("--force"), message)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_path_that_cannot_be_written_is_refused_before_training(train, tmp_path, monkeypatch):
    monkeypatch.setattr(liouville.train, "fit", lambda *_: pytest.fail("it trained"))
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert_one_line(train(out="file/run"), f"cannot write {out}: Not a directory; choose another --out.")
    assert_one_line(train(out="file"), f"{tmp_path / 'file'} is not a folder; choose another --out.")


def test_a_folder_that_could_be_written_and_not_read_is_refused(train, tmp_path):
    name = str(tmp_path / "a\udcff")
    sentence = f"the name {name!r} is not in UTF-8, as that of a run must be; choose another --out."
    assert_one_line(train(out="a\udcff"), sentence)
    result = train(out="a/" * 1900)
    assert result.code == 2 and result.err.endswith("; choose another --out.\n") and result.err.count("\n") == 1


@pytest.mark.parametrize("method", ["write_text", "write_bytes"], ids=["before training", "after it"])
def test_a_full_disk_is_one_sentence(train, tmp_path, monkeypatch, method):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, method, full)
    name = "config.json" if method == "write_text" else "model.safetensors"
    advice = "No space left on device; free some space, or choose another --out."
    lost = f" Its weights are lost; `liouville train --resume {tmp_path / 'run'}` begins again."
    more = "" if method == "write_text" else lost
    assert_one_line(train(), f"cannot write {tmp_path / 'run' / name}: {advice}{more}")
    if method == "write_text":
        assert not (tmp_path / "run").exists()
    else:
        assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "history.jsonl"}
        with pytest.raises(FileNotFoundError, match="its training did not come to an end; `liouville train --resume"):
            Run.open(tmp_path / "run").network()


@pytest.mark.filterwarnings("ignore")
def test_figures_that_find_no_room_leave_the_run_whole(liouville, tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    found = f"figures cannot be written to {tmp_path / 'run'}: File too large; the run is whole without them."
    result = liouville("train", "--layers", 4, "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    assert_one_line(result, found)
    assert Run.open(tmp_path / "run").network() is not None


def test_without_cuda_the_device_is_refused(train, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    message = "this machine, or this build of torch, has no CUDA device; use the device 'cpu'."
    assert_one_line(train("--device", "cuda"), message)


def test_nan_in_the_data_is_refused(train, monkeypatch):
    load = liouville.data.load

    def spoiled(*words, **options):
        split = load(*words, **options)
        split.x_train[7, 1] = float("nan")
        liouville.data.check(split)

    monkeypatch.setattr(liouville.runs.plan.data, "load", spoiled)
    message = "x_train has NaN or infinite values in 1 of 100 rows, the first is row 7; remove or fill these rows."
    assert_one_line(train(), message)


def test_an_unexpected_exception_asks_for_a_report_and_shows_the_traceback_on_request(train, tmp_path, monkeypatch):
    monkeypatch.delenv("LIOUVILLE_DEBUG", raising=False)
    monkeypatch.setattr(liouville.runs.Plan, "load", lambda self: {}["defect"])
    sentence = (
        "this is a defect of liouville (KeyError: 'defect'). Run the same command with LIOUVILLE_DEBUG=1 in the "
        "environment and report what it prints."
    )
    assert_one_line(train(), sentence, code=70)
    monkeypatch.setenv("LIOUVILLE_DEBUG", "1")
    result = train()
    assert result.code == 70 and "Traceback" in result.err and result.err.endswith(sentence + "\n")


def test_exhausted_memory_and_interruption_have_their_own_codes(train, monkeypatch):
    def fail(error):
        def load(self):
            raise error

        monkeypatch.setattr(liouville.runs.Plan, "load", load)
        return train()

    memory = "the memory is exhausted; use fewer samples, a smaller --batch-size, or --engine checkpointed."
    assert_one_line(fail(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")), memory)
    result = fail(KeyboardInterrupt())
    assert (result.code, result.err.strip()) == (130, "liouville: interrupted.")


def test_without_click_or_rich_the_command_says_what_to_install(monkeypatch, capsys):
    for name in ("click", "rich"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert main(["--help"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("liouville: error: the command needs click and rich (")
        assert error.endswith("install them: pip install 'liouville[command]'\n")


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ("--shift 1", "shift and warp move images (samples, channels, height, width); ", 2),
        ("--warp 1", "shift and warp move images (samples, channels, height, width); ", 2),
        ("--decay 1e300 --validation 0", "training diverged: the penalty is inf ", 1),
        (
            "--model h1 --scheme ImplicitSymplecticEuler --optimizer sgd --schedule constant --lr 1e30",
            "training diverged",
            1,
        ),
        ("--seed 99999999999999999999", "seed must be a whole number of at least 0 (and below 2^63), got ", 2),
    ],
)
def test_what_ends_training_early_is_one_sentence(train, tmp_path, words, message, code):
    result = train(*words.split())
    assert result.code == code
    assert result.err.startswith(f"liouville: error: {message}")
    assert result.err.count("\n") == 1
    # bad input leaves nothing behind, so that the corrected command is not refused; a divergence leaves its model
    assert (tmp_path / "run").exists() == (code == 1)
    if code == 1:
        Run.open(tmp_path / "run").network()


@pytest.mark.parametrize("category", [lv.DriftWarning, UserWarning])
def test_a_warning_is_one_line_with_the_options_of_the_command(category, capsys):
    assert guarded(lambda: warnings.warn("digits are lost:\n use Checkpointed().", category, stacklevel=1)) == 0
    assert capsys.readouterr().err == "liouville: warning: digits are lost: use --engine checkpointed.\n"


def test_what_a_library_below_deprecates_is_not_told(capsys):
    assert guarded(lambda: warnings.warn("old", DeprecationWarning, stacklevel=1)) == 0
    assert capsys.readouterr().err == ""
