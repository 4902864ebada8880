"""A network in a LightningModule, as a user would write it."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import liouville as lv
from parallel import cases


class Module(LightningModule):
    def __init__(self, engine):
        super().__init__()
        self.network = cases.dense(engine)

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.network(x), y) + cases.PENALTY.value(self.network)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def train(processes=1, rank=0, nudge=0.0):
    """The weights behind two epochs on 24 samples, in batches of 12 in all: each process has its part of a batch."""
    data = cases.split()
    each = 12 // processes
    rows = torch.arange(24).view(2, processes, each)[:, rank].flatten()
    loader = DataLoader(TensorDataset(data.x_train[rows], data.y_train[rows]), batch_size=each)
    module = Module(lv.Reversible())
    cases.nudged(module.network, nudge)
    several = {"strategy": "ddp", "devices": processes, "plugins": [TorchElasticEnvironment()]}
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **(several if processes > 1 else {"devices": 1}),
    )
    trainer.fit(module, loader)
    return cases.weights(module)
