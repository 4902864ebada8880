"""Cells and layers over time, made of the same fields and schemes: one weight for all steps, an input at each."""

from liouville.recurrent.along import along, flows_along
from liouville.recurrent.cell import Cell
from liouville.recurrent.layer import Recurrent
from liouville.recurrent.named import AntisymmetricRNN, AntisymmetricRNNCell, HamiltonianRNN, HamiltonianRNNCell
from liouville.recurrent.network import SequenceNetwork
from liouville.recurrent.start import step_for

__all__ = [
    "AntisymmetricRNN",
    "AntisymmetricRNNCell",
    "Cell",
    "HamiltonianRNN",
    "HamiltonianRNNCell",
    "Recurrent",
    "SequenceNetwork",
    "along",
    "flows_along",
    "step_for",
]
