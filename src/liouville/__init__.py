"""liouville: networks as deep as you like.

A network is N steps of a *scheme* applied to a *vector field* with layer-wise weights; an *engine* (``backprop``)
decides how those steps are stored or recomputed, and never changes the result.

    >>> import torch, liouville as lv
    >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=64, T=6.4)
    >>> network(torch.randn(10, 2)).shape
    torch.Size([10, 1])
"""

from __future__ import annotations

import importlib

from liouville.version import __version__ as __version__

TYPE_CHECKING = False  # typing imports slowly, and the command handles Ctrl-C only once this file is read
if TYPE_CHECKING:
    from typing import Any

    from liouville import (
        activations,
        agents,
        analysis,
        checkpoint,
        data,
        estimators,
        fields,
        kernels,
        operators,
        processes,
        recurrent,
        report,
        runs,
        schemes,
        testing,
        train,
        verify,
        zoo,
    )
    from liouville.activations import Activation
    from liouville.backprop import Backprop, Checkpointed, DriftWarning, Reversible, Stored
    from liouville.budget import budgeted
    from liouville.checkpoint import load, save
    from liouville.fields import (
        AntisymmetricField,
        HamiltonianField,
        Normal,
        PairField,
        PartitionedField,
        PerLayer,
        PortHamiltonianField,
        ResidualField,
        SecondOrderField,
        SemidefiniteField,
        SeparableHamiltonianField,
        ShearField,
        Smooth,
        StochasticField,
        SymmetricField,
        VectorField,
        dropout,
    )
    from liouville.flow import Flow
    from liouville.kernels import Auto, BatchLast, Fused, NoKernelError
    from liouville.network import Connector, Lift, Network
    from liouville.nodes import NodeHead
    from liouville.operators import Conv, Dense, Graph
    from liouville.schemes import (
        RK4,
        Coupled,
        DiscreteGradient,
        ForwardEuler,
        ImplicitMidpoint,
        ImplicitSymplecticEuler,
        LeapfrogMidpoint,
        Momentum,
        ReversibleScheme,
        Scheme,
        ShearScheme,
        SplittingScheme,
        SymmetricScheme,
        SymplecticEuler,
        Verlet,
        Yoshida4,
    )
    from liouville.schemes import Midpoint as Midpoint  # the former name of LeapfrogMidpoint
    from liouville.stack import reversible, unwrap
    from liouville.zoo import classifier, regressor

# Names are imported at first use, so that `liouville --help` does not wait for torch.
_HOMES = {
    "liouville.activations": ("Activation",),
    "liouville.backprop": ("Backprop", "Checkpointed", "DriftWarning", "Reversible", "Stored"),
    "liouville.fields": (
        "AntisymmetricField",
        "HamiltonianField",
        "Normal",
        "PairField",
        "PartitionedField",
        "PerLayer",
        "PortHamiltonianField",
        "ResidualField",
        "SecondOrderField",
        "SemidefiniteField",
        "SeparableHamiltonianField",
        "ShearField",
        "Smooth",
        "StochasticField",
        "SymmetricField",
        "VectorField",
        "dropout",
    ),
    "liouville.flow": ("Flow",),
    "liouville.kernels": ("Auto", "BatchLast", "Fused", "NoKernelError"),
    "liouville.network": ("Connector", "Lift", "Network"),
    "liouville.nodes": ("NodeHead",),
    "liouville.operators": ("Conv", "Dense", "Graph"),
    "liouville.schemes": (
        "RK4",
        "Coupled",
        "DiscreteGradient",
        "ForwardEuler",
        "ImplicitMidpoint",
        "ImplicitSymplecticEuler",
        "LeapfrogMidpoint",
        "Midpoint",
        "Momentum",
        "ReversibleScheme",
        "Scheme",
        "ShearScheme",
        "SplittingScheme",
        "SymmetricScheme",
        "SymplecticEuler",
        "Verlet",
        "Yoshida4",
    ),
    "liouville.budget": ("budgeted",),
    "liouville.stack": ("reversible", "unwrap"),
    "liouville.zoo": ("classifier", "regressor"),
    "liouville.checkpoint": ("load", "save"),
}
_MOVED = {"plan", "recipes"}  # moved into runs; kept for one version
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {
    "activations",
    "agents",
    "analysis",
    "checkpoint",
    "data",
    "estimators",
    "fields",
    "kernels",
    "operators",
    "processes",
    "recurrent",
    "report",
    "runs",
    "schemes",
    "testing",
    "train",
    "verify",
    "zoo",
}

__all__ = [
    "RK4",
    "Activation",
    "AntisymmetricField",
    "Auto",
    "Backprop",
    "BatchLast",
    "Checkpointed",
    "Connector",
    "Conv",
    "Coupled",
    "Dense",
    "DiscreteGradient",
    "DriftWarning",
    "Flow",
    "ForwardEuler",
    "Fused",
    "Graph",
    "HamiltonianField",
    "ImplicitMidpoint",
    "ImplicitSymplecticEuler",
    "LeapfrogMidpoint",
    "Lift",
    "Momentum",
    "Network",
    "NoKernelError",
    "NodeHead",
    "Normal",
    "PairField",
    "PartitionedField",
    "PerLayer",
    "PortHamiltonianField",
    "ResidualField",
    "Reversible",
    "ReversibleScheme",
    "Scheme",
    "SecondOrderField",
    "SemidefiniteField",
    "SeparableHamiltonianField",
    "ShearField",
    "ShearScheme",
    "Smooth",
    "SplittingScheme",
    "StochasticField",
    "Stored",
    "SymmetricField",
    "SymmetricScheme",
    "SymplecticEuler",
    "VectorField",
    "Verlet",
    "Yoshida4",
    "activations",
    "agents",
    "analysis",
    "budgeted",
    "checkpoint",
    "classifier",
    "data",
    "dropout",
    "estimators",
    "fields",
    "kernels",
    "load",
    "operators",
    "processes",
    "recurrent",
    "regressor",
    "report",
    "reversible",
    "runs",
    "save",
    "schemes",
    "testing",
    "train",
    "unwrap",
    "verify",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES | _MOVED:
        return importlib.import_module(f"liouville.{name}")
    raise AttributeError(f"module 'liouville' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
