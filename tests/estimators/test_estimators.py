"""The estimators as scikit-learn's users use them: frames, weights, search, pipelines, files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")
pd = pytest.importorskip("pandas")

import sklearn
from sklearn.base import clone
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from liouville.estimators import HamiltonianClassifier, HamiltonianRegressor
from liouville.estimators.rows import distinct

SMALL: dict[str, Any] = {"features": 8, "layers": 2, "max_iter": 4, "random_state": 0}


def frame(rows: int = 60) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "town": rng.choice(["Oslo", "Rome", None], rows),
            "sex": pd.Categorical(rng.choice(["f", "m"], rows)),
        }
    )
    X.loc[::7, "age"] = np.nan
    return X, np.where((X.age.fillna(40) > 40) ^ (X.town == "Oslo"), "yes", "no")


def classes(rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(rows, 5, n_classes=3, n_informative=4, n_redundant=0, random_state=0)


def test_frames_with_words_categories_and_gaps_are_learned() -> None:
    X, y = frame(120)
    model = HamiltonianClassifier(features=16, layers=4, max_iter=40, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.classes_.tolist() == ["no", "yes"] and model.feature_names_in_.tolist() == ["age", "town", "sex"]
    assert model.columns_.features()[:2] == ["age", "age is missing"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"age": "years"}))


@pytest.mark.parametrize("rows", [30, 100])
def test_order_and_copies_of_rows_do_not_matter_to_the_last_bit(rows: int) -> None:
    X, y = classes(rows)
    w = np.random.default_rng(1).integers(0, 4, rows)
    order = np.random.default_rng(2).permutation(rows)
    copies = np.random.default_rng(3).permutation(np.repeat(np.arange(rows), w))
    model = HamiltonianClassifier(**SMALL)
    weighted = clone(model).fit(X, y, sample_weight=w).predict_proba(X)
    assert (weighted == clone(model).fit(X[order], y[order], sample_weight=w[order]).predict_proba(X)).all()
    assert (weighted == clone(model).fit(X[copies], y[copies]).predict_proba(X)).all()
    assert not (weighted == clone(model).fit(X, y).predict_proba(X)).all()


def test_distinct_rows_keep_their_total_weight() -> None:
    keys = np.random.default_rng(0).integers(0, 3, (40, 2)).astype(float)
    w = np.random.default_rng(1).integers(1, 5, 40).astype(float)
    rows, total = distinct(keys, w)
    assert total is not None and total.sum() == w.sum()
    for row, weight in zip(rows, total, strict=True):
        assert weight == w[(keys == keys[row]).all(1)].sum()


def test_class_weights_move_the_decision() -> None:
    X, y = classes(120)
    model = HamiltonianClassifier(**SMALL | {"max_iter": 10})
    share = [
        (clone(model).set_params(class_weight=weights).fit(X, y).predict(X) == 0).mean()
        for weights in ({0: 100.0, 1: 1.0, 2: 1.0}, None, {0: 0.01, 1: 1.0, 2: 1.0})
    ]
    assert share[0] > share[1] + 0.1 > share[2] + 0.2
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y)
    by_hand = clone(model).fit(X, y, sample_weight=sklearn.utils.class_weight.compute_sample_weight("balanced", y))
    assert (balanced.predict_proba(X) == by_hand.predict_proba(X)).all()


def test_warm_starts_and_parts_go_on_from_the_weights_that_there_are() -> None:
    X, y = classes(150)
    model = HamiltonianClassifier(**SMALL | {"warm_start": True, "early_stopping": False})
    first = model.fit(X, y).histories_[0].metrics["train_loss"]
    assert model.fit(X, y).histories_[0].epochs[0].loss < first * 1.2, "not from the beginning"
    parts = HamiltonianClassifier(**SMALL)
    losses = []
    for _ in range(12):
        for rows in np.array_split(np.arange(150), 3):
            parts.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        losses.append(-np.log(parts.predict_proba(X)[np.arange(150), y]).mean())
    assert losses[-1] < 0.8 * losses[0] and parts.n_iter_ == 36
    again = pickle.loads(pickle.dumps(parts))
    parts.partial_fit(X, y)
    again.partial_fit(X, y)
    assert (again.predict_proba(X) == parts.predict_proba(X)).all(), "the optimiser is kept, too"


def test_early_stopping_stops_and_without_it_nothing_is_held_out() -> None:
    X, y = classes(150)
    model = HamiltonianClassifier(**SMALL | {"max_iter": 200, "n_iter_no_change": 2}).fit(X, y)
    assert model.n_iter_ < 200 and model.histories_[0].stopped == "no better validation loss in 2 epochs"
    whole = HamiltonianClassifier(**SMALL | {"early_stopping": False}).fit(X, y)
    assert whole.n_iter_ == 4 and whole.histories_[0].epochs[0].validation_loss is None


@pytest.mark.parametrize("kind", [HamiltonianClassifier, HamiltonianRegressor])
def test_files_hold_no_code_and_give_the_same_bits(kind: type, tmp_path: Path) -> None:
    X, y = frame()
    target = y if kind is HamiltonianClassifier else X.age.fillna(0).to_numpy()
    own = {"class_weight": {"yes": 2.0, "no": 1.0}} if kind is HamiltonianClassifier else {"loss": "huber"}
    model = kind(**SMALL | own | {"ensemble": 2}).fit(X, target)
    again = kind.load(model.save(tmp_path / "model.safetensors"))
    assert (again.predict(X) == model.predict(X)).all() and again.get_params() == model.get_params()
    assert again.n_features_in_ == 3 and again.feature_names_in_.tolist() == list(X.columns)
    other = HamiltonianRegressor if kind is HamiltonianClassifier else HamiltonianClassifier
    with pytest.raises(ValueError, match=f"holds a {kind.__name__}; call that class's load"):
        other.load(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "bad").write_bytes(content.replace(b"Oslo", b"Olso"))
    with pytest.raises(ValueError, match="changed after it was written"):
        kind.load(tmp_path / "bad")
    copied = pickle.loads(pickle.dumps(model))
    assert (kind.load(copied.save(tmp_path / "copied")).predict(X) == model.predict(X)).all()


def test_classes_of_one_row_each_are_learned_with_nothing_held_out() -> None:
    X, y = np.arange(30.0)[:, None], np.arange(30)
    with pytest.warns(UserWarning, match="could represent a regression problem"):
        model = HamiltonianClassifier(**SMALL).fit(X, y)
    assert model.predict_proba(X).shape == (30, 30) and "validation_loss" not in model.histories_[0].metrics


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    X, y = classes()
    model = HamiltonianClassifier(**SMALL | {"ensemble": 3}).fit(X, y)
    x = torch.as_tensor(model.columns_.transform(X))
    with torch.no_grad():
        mean = torch.stack([network.double()(x).softmax(1) for network in model.networks_]).mean(0).numpy()
    np.testing.assert_allclose(model.predict_proba(X), mean, rtol=1e-12)
    np.testing.assert_array_equal(model.decision_function(X).argmax(1), model.predict_proba(X).argmax(1))
    assert len({network.head.weight.sum().item() for network in model.networks_}) == 3


@pytest.mark.slow
def test_labels_of_which_several_hold() -> None:
    X, y = make_multilabel_classification(150, 6, n_classes=3, random_state=0)
    model = HamiltonianClassifier(**SMALL | {"max_iter": 60, "features": 16}).fit(X, y)
    assert model.predict(X).shape == (150, 3) and (model.predict(X) == y).mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "share"), [({"loss": "quantile", "quantile": 0.9}, 0.9), ({"loss": "absolute_error"}, 0.5)]
)
def test_quantiles_have_their_share_below_them(more: dict[str, Any], share: float) -> None:
    """Of 400 targets, to within what the fit leaves: a tenth."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = X[:, 0] + rng.exponential(size=400)
    model = HamiltonianRegressor(**SMALL | more | {"max_iter": 30}).fit(X, y)
    assert abs((y <= model.predict(X)).mean() - share) < 0.1


def test_search_pipelines_and_metadata() -> None:
    X, y = frame()
    search = GridSearchCV(HamiltonianClassifier(**SMALL), {"T": [1.0, 2.0]}, cv=2).fit(X, y)
    assert search.best_params_["T"] in (1.0, 2.0)
    pipe = make_pipeline(StandardScaler(), HamiltonianClassifier(**SMALL)).set_output(transform="pandas")
    assert pipe.fit(X[["age"]].fillna(0), y)[-1].feature_names_in_.tolist() == ["age"]
    with sklearn.config_context(enable_metadata_routing=True):
        model = HamiltonianClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = np.r_[np.ones(40), np.zeros(20)]
        found = cross_validate(model, X, y, params={"sample_weight": weights}, cv=2, error_score="raise")
        assert len(found["test_score"]) == 2


X, Y = frame()
WRONG = [
    (lambda: HamiltonianClassifier(**SMALL).fit(X, ["yes"] * 60), "y has one class only, 'yes'"),
    (lambda: HamiltonianClassifier(**SMALL).fit(X.iloc[:0], Y[:0]), r"shape \(0, 3\)"),
    (lambda: HamiltonianClassifier(features=0).fit(X, Y), "features must be a whole number of at least 1"),
    (lambda: HamiltonianClassifier(features=7).fit(X, Y), "features must be even"),
    (lambda: HamiltonianClassifier(model="h3").fit(X, Y), "unknown model 'h3'; did you mean 'h2'"),
    (lambda: HamiltonianClassifier(model="verlet").fit(X, Y), "use model='ms1'"),
    (lambda: HamiltonianClassifier(activation="rely").fit(X, Y), "did you mean 'relu'"),
    (lambda: HamiltonianClassifier(learning_rate="adaptive").fit(X, Y), "learning_rate must be a positive number"),
    (lambda: HamiltonianClassifier(validation_fraction=1.5).fit(X, Y), r"validation_fraction must lie in \[0, 1\)"),
    (lambda: HamiltonianClassifier(label_smoothing=-1).fit(X, Y), r"label_smoothing must lie in \[0, 1\)"),
    (lambda: HamiltonianClassifier(device="tpu").fit(X, Y), "device='tpu' cannot be used here"),
    (lambda: HamiltonianClassifier().partial_fit(X, Y), "classes must be passed on the first call"),
    (lambda: HamiltonianClassifier(**SMALL).partial_fit(X, Y, classes=["no", "maybe"]), "y has the class 'yes'"),
    (lambda: HamiltonianClassifier(**SMALL).fit(X, Y, sample_weight=-np.ones(60)), "Negative values"),
    (lambda: HamiltonianClassifier(**SMALL, class_weight={"yes": 1, "no": -1}).fit(X, Y), "class_weight must be"),
    (
        lambda: HamiltonianClassifier(**SMALL).partial_fit(X, Y, classes=["no", "yes"]).partial_fit(X, Y, classes="no"),
        "classes must be those of the first call",
    ),
    (lambda: HamiltonianRegressor(**SMALL).fit(X, Y), "y must be numbers .* HamiltonianClassifier"),
    (lambda: HamiltonianRegressor(**SMALL).fit(X, np.linspace(-1e300, 1e300, 60)), "y has numbers up to 1e.300"),
    (lambda: HamiltonianRegressor(**SMALL).fit([[1e300], [-1e300]], [0, 1]), "'x0' has numbers up to 1e.300"),
    (lambda: HamiltonianRegressor(loss="mae").fit(X, np.ones(60)), "loss must be one of 'squared_error'"),
    (lambda: HamiltonianRegressor(quantile=0.2).fit(X, np.ones(60)), "belong together"),
    (
        lambda: HamiltonianRegressor(loss="quantile", quantile=2).fit(X, np.ones(60)),
        "quantile must be a number between 0 and 1",
    ),
    (lambda: HamiltonianClassifier(**SMALL).fit([[np.inf], [0.0]], [0, 1]), "contains infinity"),
    (lambda: HamiltonianClassifier(**SMALL, categorical_features=["a"]).fit(X, Y), "there is no column 'a'"),
]


@pytest.mark.parametrize("wrong", range(len(WRONG)))
def test_what_cannot_be_fitted_is_refused_in_a_sentence(wrong: int) -> None:
    fit, sentence = WRONG[wrong]
    with pytest.raises(ValueError, match=sentence) as raised:
        fit()
    assert "\n" not in str(raised.value)


def test_a_network_of_its_own_answers_raw_rows_as_the_estimator_does(tmp_path: Path) -> None:
    import liouville as lv

    X, y = frame()
    model = HamiltonianClassifier(**SMALL).fit(X, y)
    lv.save(model.to_network(), tmp_path / "net.safetensors")
    network = lv.load(tmp_path / "net.safetensors")
    assert network.predict(X) == model.predict(X).tolist()
    assert network.predict(X[["sex", "age", "town"]]) == model.predict(X).tolist()

    columns = X.assign(member=X.age > 40)
    model = HamiltonianClassifier(**SMALL).fit(columns, y)
    read = pd.read_csv(io.StringIO(columns.to_csv(index=False)), dtype=str)
    assert model.to_network().predict(read) == model.predict(columns).tolist()

    numbers, targets = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50.0)
    regressor = HamiltonianRegressor(**SMALL).fit(numbers, targets)
    assert regressor.to_network().predict(numbers)[:, 0].numpy() == pytest.approx(regressor.predict(numbers), rel=1e-5)

    with pytest.raises(ValueError, match="member must be one of 0 to 0, got 1"):
        model.to_network(1)
    many = HamiltonianClassifier(**SMALL).fit(*make_multilabel_classification(40, 4, random_state=0))
    with pytest.raises(ValueError, match="several labels"):
        many.to_network()
