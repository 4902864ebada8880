"""Data of one's own, scaled and named, and a plan that learns them in a second."""

import torch

import liouville as lv
from liouville.runs import Plan

PLAN = Plan(features=8, layers=4, T=2.0, settings=lv.train.Settings(epochs=3, batch_size=20, lr=0.05), threads=1)
RAW = torch.tensor([[3.0, -20.0, 500.0], [-4.0, 90.0, -100.0], [0.0, 0.0, 0.0]])


def split(kind="classes"):
    """80 training and 20 test samples of three columns of very different size."""
    raw = torch.randn(100, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.tensor(
        [1, 10, 100]
    )
    offset, scale = raw[:80].mean(0), raw[:80].std(0)
    x = ((raw - offset) / scale).float()
    known = {"name": "mine", "offset": offset, "scale": scale, "column_names": ("a", "b", "c")}
    if kind == "targets":
        y = torch.stack([raw[:, 0] * 50 + 7, raw[:, 1]], 1)
        mean, size = y[:80].mean(0), y[:80].std(0)
        y = ((y - mean) / size).float()
        return lv.data.Split(x[:80], y[:80], x[80:], y[80:], classes=0, target_offset=mean, target_scale=size, **known)
    y = (raw[:, 0] + raw[:, 1] / 10 > 0).long() + (raw[:, 2] > 50).long()
    names = ("low", "middle", "high")
    return lv.data.Split(x[:80], y[:80], x[80:], y[80:], classes=3, label_names=names, **known)
