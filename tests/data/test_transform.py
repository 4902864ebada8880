"""How raw inputs become x: stated by the split, applied to new inputs, checked when the split is made."""

import pytest
import torch

from liouville.data import Split, load


def split_with(classes=2, **maps):
    x = torch.randn(6, 3)
    y = torch.arange(6) % 2 if classes else torch.randn(6, 1)
    return Split(x, y, x, y, "made up", classes, **maps)


@pytest.mark.parametrize("name", ["wine", "breast-cancer", "diabetes"])
def test_standardised_tables_state_the_map_from_their_raw_features(name):
    pytest.importorskip("sklearn")
    split, raw = load(name), load(name, standardise=False, dtype=torch.float64)
    assert raw.offset is None and raw.scale is None
    for part in ("x_train", "x_test"):
        assert torch.allclose(split.transformed(getattr(raw, part)), getattr(split, part), atol=1e-6)
    if not split.classes:
        restored = split.y_test.double() * split.target_scale + split.target_offset
        assert torch.allclose(restored, raw.y_test, rtol=1e-5)


def test_digits_state_the_scale_of_their_grey_values():
    pytest.importorskip("sklearn")
    split = load("digits", image=True)
    assert torch.equal(split.transformed(16 * torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


def test_generated_data_is_as_it_is():
    split = load("double-moons", points=80)
    assert split.offset is None and split.scale is None
    assert torch.equal(split.transformed(split.x_test.double()), split.x_test)


def test_the_map_survives_another_type():
    split = split_with(offset=torch.tensor([1.0, 2.0, 3.0]), scale=torch.tensor(2.0)).to(dtype=torch.float64)
    x = split.transformed(torch.tensor([[3.0, 2.0, 1.0]]))
    assert x.dtype == torch.float64 and x.tolist() == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"offset": torch.zeros(3)}, "offset and scale must be given together, or neither."),
        ({"offset": torch.zeros(3), "scale": torch.tensor([1.0, 0.0, 1.0])}, "a scale must not be 0."),
        ({"offset": torch.tensor(torch.nan), "scale": torch.ones(3)}, "offset must be finite"),
        ({"offset": torch.zeros(2), "scale": torch.ones(2)}, r"offset has shape \(2,\), which does not broadcast"),
        ({"offset": torch.zeros(2, 3), "scale": torch.ones(3)}, r"offset has shape \(2, 3\), which does not broadcast"),
        ({"target_offset": torch.zeros(1), "target_scale": torch.ones(1)}, "labels have no target_offset"),
    ],
)
def test_a_map_that_cannot_be_is_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        split_with(**maps)
