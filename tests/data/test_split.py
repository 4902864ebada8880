"""`Split` accepts sound data only, and says in one sentence what is wrong with other data."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import liouville.data
from liouville.data.numbers import real_number, whole_number
from liouville.data.split import Split

FILL = "remove or fill these rows."
RENUMBER = "renumber the labels or correct classes."
FRACTIONS = "use a fraction from 0.125 to 0.875."


def parts(**changes):
    """Sound classification data of 8 training and 4 test samples, with the given fields replaced."""
    x = torch.arange(24.0).reshape(12, 2)
    y = torch.arange(12) % 3
    sound = {
        "x_train": x[:8],
        "y_train": y[:8],
        "x_test": x[8:],
        "y_test": y[8:],
        "name": "toy",
        "classes": 3,
    }
    return sound | changes


def regression(**changes):
    real = torch.arange(12.0)
    return parts(y_train=real[:8], y_test=real[8:], classes=0) | changes


def spoiled(row, value, column=0):
    x = parts()["x_train"].clone()
    x[row, column] = value
    return x


def two_bad_rows():
    x = spoiled(5, float("nan"))
    x[2, 1] = float("inf")
    return x


def test_sound_data_is_accepted():
    assert repr(Split(**parts())) == (
        "Split('toy', 8 training and 4 test samples of shape (2,), 3 classes, float32, cpu)"
    )
    assert "regression" in repr(Split(**regression()))
    assert Split(**regression(y_train=torch.ones(8, 2), y_test=torch.ones(4, 2))).classes == 0
    assert Split(**parts(label_names=("a", "b", "c"))).label_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train": two_bad_rows()},
            "x_train has NaN or infinite values in 2 of 8 rows, the first is row 2; " + FILL,
        ),
        (
            {"x_test": torch.full((4, 2), -float("inf"))},
            "x_test has NaN or infinite values in 4 of 4 rows, the first is row 0; " + FILL,
        ),
        (
            {"y_train": torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])},
            "y_train has labels from 0 to 3, expected 0 to 2 (classes=3); " + RENUMBER,
        ),
        (
            {"y_test": torch.tensor([0, -1, 2, 1])},
            "y_test has labels from -1 to 2, expected 0 to 2 (classes=3); " + RENUMBER,
        ),
        (
            {"y_train": torch.zeros(8)},
            "y_train must be int64 labels for classes=3, got torch.float32; convert it with y.long(), "
            "or pass classes=0 for regression.",
        ),
        (
            {"y_test": torch.zeros(4, dtype=torch.int32)},
            "y_test must be int64 labels for classes=3, got torch.int32; convert it with y.long(), "
            "or pass classes=0 for regression.",
        ),
        (
            {"y_train": torch.full((8,), 2)},
            "y_train has one class only, 2, in all its 8 samples; training needs at least two.",
        ),
        (
            {"x_train": torch.zeros(0, 2), "y_train": torch.zeros(0, dtype=torch.int64)},
            "the train part is empty (x_train has shape (0, 2)); it needs at least one sample.",
        ),
        (
            {"x_test": torch.zeros(0, 2), "y_test": torch.zeros(0, dtype=torch.int64)},
            "the test part is empty (x_test has shape (0, 2)); it needs at least one sample.",
        ),
        (
            {"x_test": torch.zeros(5, 2)},
            "x_test has 5 samples but y_test has 4; they must have the same length.",
        ),
        (
            {"x_train": torch.zeros(8)},
            "x_train must have shape (samples, *features), got (8,); for one feature use x[:, None].",
        ),
        (
            {"x_train": torch.zeros(8, 0)},
            "x_train must have shape (samples, *features), got (8, 0); for one feature use x[:, None].",
        ),
        ({"y_train": torch.zeros(8, 1)}, "y_train must have shape (samples,), got (8, 1)."),
        (
            {"x_train": torch.zeros(8, 2, dtype=torch.int64)},
            "x_train must be floating point, got torch.int64; convert it with x.float().",
        ),
        (
            {"x_test": torch.zeros(4, 3)},
            "x_train and x_test must have the same shape after the first axis, got (2,) and (3,).",
        ),
        (
            {"x_test": torch.zeros(4, 2, dtype=torch.float64)},
            "x_train and x_test must have one dtype, got torch.float32 and torch.float64.",
        ),
        ({"classes": 1}, "classes must be at least 2, or 0 for regression, got 1."),
        ({"classes": -1}, "classes must be at least 2, or 0 for regression, got -1."),
        ({"column_names": ("a",)}, "column_names must have one name for each feature of (2,), got 1."),
        ({"column_names": ("a", "a")}, "column_names must be different strings, got ('a', 'a')."),
        ({"column_names": ("a", 1)}, "column_names must be different strings, got ('a', 1)."),
        ({"label_names": ("a", "b")}, "label_names must have one name for each of 3 classes, got 2."),
    ],
)
def test_unsound_classification_data_is_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        Split(**parts(**changes))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"y_train": torch.tensor([1.0] * 7 + [float("nan")])},
            "y_train has NaN or infinite values in 1 of 8 rows, the first is row 7; " + FILL,
        ),
        (
            {"y_train": torch.zeros(8, dtype=torch.int64)},
            "y_train must be floating point for regression (classes=0), got torch.int64; convert it with "
            "y.float(), or give the number of classes.",
        ),
        (
            {"y_train": torch.zeros(8, 1, 1)},
            "y_train must have shape (samples,) or (samples, outputs), got (8, 1, 1).",
        ),
        (
            {"y_test": torch.zeros(4, 1)},
            "y_train and y_test must have the same shape after the first axis, got () and (1,).",
        ),
    ],
)
def test_unsound_regression_data_is_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        Split(**regression(**changes))
    assert str(caught.value) == message


def test_parts_on_different_devices_are_refused():
    with pytest.raises(ValueError, match=r"all four tensors must be on one device, got cpu, meta; use Split\.to\."):
        liouville.data.checks._check_same(_Unchecked(**parts(x_test=torch.zeros(4, 2, device="meta"))))


class _Unchecked(Split):
    def __post_init__(self):
        """Accept anything."""


def test_wrong_python_types_are_refused():
    with pytest.raises(
        TypeError, match=r"x_train must be a torch.Tensor, got ndarray; convert it with torch.as_tensor"
    ):
        Split(**parts(x_train=np.zeros((8, 2))))
    with pytest.raises(TypeError, match=r"y_test must be a torch.Tensor, got list"):
        Split(**parts(y_test=[0, 1, 2, 0]))
    with pytest.raises(TypeError, match=r"classes must be an int, got None; write 0 for regression"):
        Split(**parts(classes=None))


def test_holdout_divides_the_training_part_and_touches_no_test_sample():
    split = Split(**parts())
    held = split.holdout(0.25, torch.Generator().manual_seed(0))
    assert (len(held.x_train), len(held.x_validation)) == (6, 2)
    rows = torch.cat((held.x_train, held.x_validation))
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, split.x_train.tolist()))
    labels = dict(zip(map(tuple, split.x_train.tolist()), split.y_train.tolist(), strict=True))
    for x, y in ((held.x_train, held.y_train), (held.x_validation, held.y_validation)):
        assert [labels[tuple(row)] for row in x.tolist()] == y.tolist()


def test_holdout_is_a_function_of_its_generator():
    split = Split(**parts())
    before = torch.get_rng_state()
    first, again, other = (split.holdout(0.5, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.x_train, again.x_train) and not torch.equal(first.x_train, other.x_train)
    torch.manual_seed(3)
    assert torch.equal(split.holdout(0.5, None).x_train, first.x_train)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (
            0.0,
            "fraction 0.0 of 8 training samples leaves nothing to hold out; " + FRACTIONS,
        ),
        (
            0.01,
            "fraction 0.01 of 8 training samples leaves nothing to hold out; " + FRACTIONS,
        ),
        (
            0.99,
            "fraction 0.99 of 8 training samples leaves nothing to train on; " + FRACTIONS,
        ),
        (1.5, "fraction must be a number from 0 to 1, got 1.5."),
        (float("nan"), "fraction must be a number from 0 to 1, got nan."),
        ("half", "fraction must be a number from 0 to 1, got 'half'."),
        (
            0.875,
            "holding out a fraction 0.875 of 8 training samples leaves only class 1 to train on; "
            "use a smaller fraction or another seed.",
        ),
    ],
)
def test_holdout_that_leaves_nothing_is_refused(fraction, message):
    split = Split(**parts(y_train=torch.tensor([1] * 7 + [0])))
    with pytest.raises(ValueError) as caught:
        split.holdout(fraction, torch.Generator().manual_seed(0))
    assert str(caught.value) == message


def test_one_training_sample_cannot_be_divided():
    one = Split(**regression(x_train=torch.zeros(1, 2), y_train=torch.zeros(1)))
    with pytest.raises(ValueError) as caught:
        one.holdout(0.5, None)
    assert str(caught.value) == ("a validation part cannot be taken out of 1 training sample; it needs at least two.")


def test_to_moves_inputs_and_real_targets_but_not_labels():
    double = Split(**parts()).to(dtype=torch.float64)
    assert double.x_train.dtype == double.x_test.dtype == torch.float64
    assert double.y_train.dtype == double.y_test.dtype == torch.int64
    real = Split(**regression()).to("cpu", torch.float64)
    assert real.y_train.dtype == real.y_test.dtype == torch.float64
    assert torch.equal(real.y_train, torch.arange(8.0, dtype=torch.float64))


def test_to_refuses_what_cannot_be():
    split = Split(**parts(x_train=torch.full((8, 2), 1e9)))
    with pytest.raises(TypeError, match=r"got torch.float64; write to\(dtype=torch.float64\)\."):
        split.to(torch.float64)
    with pytest.raises(TypeError, match=r"dtype must be a floating-point type such as torch.float64, got torch.int64"):
        split.to(dtype=torch.int64)
    with pytest.raises(ValueError, match=r"x_train has NaN or infinite values in 8 of 8 rows"):
        split.to(dtype=torch.float16)


def test_a_split_is_frozen():
    with pytest.raises(AttributeError):
        Split(**parts()).name = "other"


def test_option_values_are_checked_in_one_sentence():
    assert whole_number("points", 8, low=8, multiple_of=4) == 8
    for value in (7, 9.0, True, "8", None):
        with pytest.raises(ValueError) as caught:
            whole_number("points", value, low=8, multiple_of=4)
        assert str(caught.value) == f"points must be a multiple of 4 of at least 8, got {value!r}."
    with pytest.raises(ValueError, match=r"train must be a whole number from 1 to 5, got 6\."):
        whole_number("train", 6, low=1, high=5)
    with pytest.raises(ValueError, match=r"noise must be a number of at least 0, got inf\."):
        real_number("noise", float("inf"), low=0.0)


def test_load_answers_an_unknown_name_or_option_in_one_sentence():
    with pytest.raises(ValueError) as caught:
        liouville.data.load("swiss_roll")
    assert str(caught.value).startswith("unknown data set 'swiss_roll'; did you mean 'swiss-roll'? Known data sets: ")
    with pytest.raises(ValueError) as caught:
        liouville.data.load("swiss-roll", nois=0.1)
    assert str(caught.value) == (
        "unknown option 'nois' of data set 'swiss-roll'; did you mean 'noise'? "
        "Valid options: version, points, noise, test, seed, dtype, root."
    )


def test_every_source_is_described_and_has_explicit_options():
    assert liouville.data.names() == tuple(liouville.data.SOURCES)
    for name, source in liouville.data.SOURCES.items():
        assert source.description and "\n" not in source.description, name
        assert source.options and "options" not in source.options, name
    assert liouville.data.SOURCES["double-moons"].options == {"points": 8000, "noise": 0.15}


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("sklearn", "scipy", "pooch", "requests")
    code = f"import sys, liouville.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
