"""What the files of a run folder say: of what was asked, and of what was measured."""

from __future__ import annotations

__all__ = ["config_of", "metrics_of"]

from typing import Any

import torch

from liouville.facts import Facts
from liouville.files import without_nan
from liouville.network import Network
from liouville.provenance import versions
from liouville.runs.plan import Plan
from liouville.runs.run import FORMAT
from liouville.runs.spread import Spread
from liouville.train import History


def config_of(plan: Plan | Spread, facts: Facts, network: Network, command: list[str] | None = None) -> dict[str, Any]:
    """What ``config.json`` says, of a network before training."""
    config: dict[str, Any] = without_nan(
        {
            "format": FORMAT,
            "command": command,
            **_asked(plan),
            "data": facts.as_dict(),
            "parameters": sum(p.numel() for p in network.parameters()),
            "threads": torch.get_num_threads(),
            "device": str(next(network.parameters()).device),
            "versions": versions(),
        }
    )
    return config


def _asked(plan: Plan | Spread) -> dict[str, Any]:
    if isinstance(plan, Plan):
        return {"plan": plan.as_dict()}
    agents = plan.as_dict()
    return {"plan": agents.pop("plan"), "agents": agents}


def metrics_of(network: Network, history: History, **more: Any) -> dict[str, Any]:
    """What ``metrics.json`` says; ``more`` goes in as it is."""
    metrics: dict[str, Any] = without_nan(
        {
            **history.metrics,
            "best_epoch": history.best_epoch,
            "epochs": len(history.epochs),
            "stopped": history.stopped,
            "parameters": sum(p.numel() for p in network.parameters()),
            **more,
        }
    )
    return metrics
