"""The names of the files in a run folder."""

from __future__ import annotations

__all__ = [
    "AGENTS",
    "CERTIFICATE",
    "CHECKPOINT",
    "CONFIG",
    "FIGURES",
    "HISTORY",
    "LOCALITY",
    "LOCK",
    "METRICS",
    "MODEL",
    "REPORT",
]

CERTIFICATE = "certificate.json"
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
FIGURES = "figures"
HISTORY = "history.jsonl"
LOCALITY = "locality.json"  # of agents
LOCK = "lock"
METRICS = "metrics.json"
MODEL = "model.safetensors"
REPORT = "report.html"
AGENTS = "agents.json"  # what folders of agents had in place of CONFIG
