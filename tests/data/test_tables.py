"""scikit-learn's tables: divided by seed, in proportion, standardised by the training samples alone."""

import builtins

import pytest
import torch

from liouville.data import load

pytest.importorskip("sklearn", reason="the tables come with scikit-learn")

TABLES = {
    "digits": (1797, 64, 10),
    "breast-cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "iris": (150, 4, 3),
    "diabetes": (442, 10, 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_shapes_and_sizes(name):
    samples, features, classes = TABLES[name]
    split = load(name)
    assert split.x_train.shape[1:] == split.x_test.shape[1:] == (features,)
    assert len(split.x_test) == round(0.2 * samples) and len(split.x_train) + len(split.x_test) == samples
    assert split.classes == classes and split.name == name and split.x_train.dtype == torch.float32
    assert load(name, dtype=torch.float64, test_fraction=0.5).x_test.shape == (round(0.5 * samples), features)


@pytest.mark.parametrize("name", TABLES)
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generators_alone(name):
    before = torch.get_rng_state()
    one, again, other = load(name, seed=1), load(name, seed=1), load(name, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(one, part), getattr(again, part))
    assert not torch.equal(one.x_train, other.x_train)


@pytest.mark.parametrize("name", ["digits", "breast-cancer", "wine", "iris"])
def test_classes_keep_their_proportions(name):
    split = load(name)
    counts = split.y_train.bincount() + split.y_test.bincount()
    expected = counts * len(split.y_test) / counts.sum()
    assert (split.y_test.bincount() - expected).abs().max() <= 1
    assert split.label_names is not None and len(split.label_names) == split.classes
    assert split.column_names is not None and len(split.column_names) == split.x_train.shape[1]


def test_digits_are_grey_values_from_0_to_1_and_images_on_demand():
    flat, image = load("digits"), load("digits", image=True)
    assert flat.x_train.min() == 0 and flat.x_train.max() == 1
    assert torch.equal(flat.x_train * 16, (flat.x_train * 16).round())
    assert image.x_train.shape[1:] == image.x_test.shape[1:] == (1, 8, 8)
    assert torch.equal(image.x_train.flatten(1), flat.x_train) and torch.equal(image.y_test, flat.y_test)
    assert image.label_names == flat.label_names and image.column_names is None


@pytest.mark.parametrize("name", ["breast-cancer", "wine", "iris", "diabetes"])
def test_standardising_uses_the_training_samples_only(name):
    split, raw = (load(name, dtype=torch.float64, standardise=flag) for flag in (True, False))
    mean, std = raw.x_train.mean(0), raw.x_train.std(0, correction=0)
    assert torch.allclose(split.x_train, (raw.x_train - mean) / std, rtol=1e-10, atol=1e-10)
    assert torch.allclose(split.x_test, (raw.x_test - mean) / std, rtol=1e-10, atol=1e-10)
    assert torch.allclose(split.x_train.mean(0), torch.zeros_like(mean), atol=1e-10)
    assert split.x_test.mean(0).abs().max() > 1e-3  # the test samples' own mean would be 0


def test_the_target_of_diabetes_is_real_and_standardised():
    split, raw = (
        load("diabetes", dtype=torch.float64),
        load("diabetes", dtype=torch.float64, standardise=False),
    )
    assert split.y_train.shape == (354, 1) and split.y_train.dtype == torch.float64 and split.label_names is None
    assert load("diabetes").y_train.dtype == torch.float32
    mean, std = raw.y_train.mean(), raw.y_train.std(correction=0)
    assert torch.allclose(split.y_test, (raw.y_test - mean) / std)
    assert raw.y_train.min() >= 25 and raw.y_train.max() <= 346


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wine", {"test_fraction": 1.5}, "test_fraction must be a number from 0 to 1, got 1.5."),
        (
            "wine",
            {"test_fraction": 0.001},
            "test_fraction 0.001 of 178 samples gives 0 test and 178 training samples, "
            "and each part needs at least 3; the default is 0.2.",
        ),
        (
            "diabetes",
            {"test_fraction": 1},
            "test_fraction 1 of 442 samples gives 442 test and 0 training samples, "
            "and each part needs at least 1; the default is 0.2.",
        ),
        ("digits", {"seed": 2**32}, "seed must be a whole number from 0 to 4294967295, got 4294967296."),
    ],
)
def test_option_values_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError) as caught:
        load(name, **options)
    assert str(caught.value) == message


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError) as caught:
        load("wine")
    assert str(caught.value) == ("this data set comes with scikit-learn; install it: pip install 'liouville[data]'")
