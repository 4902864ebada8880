"""Vector fields: which ordinary differential equation a network integrates."""

from liouville.fields.activated import ActivatedField
from liouville.fields.antisymmetric import AntisymmetricField
from liouville.fields.base import VectorField
from liouville.fields.driven import DrivenField, PartitionedDrivenField, driven
from liouville.fields.dropout import DropoutField, PartitionedDropoutField, dropout
from liouville.fields.gated import GatedAntisymmetricField
from liouville.fields.given import PerLayer
from liouville.fields.hamiltonian import HamiltonianField, SeparableHamiltonianField
from liouville.fields.initial import Initial, Normal, Smooth
from liouville.fields.pair import PairField
from liouville.fields.partitioned import PartitionedField
from liouville.fields.porthamiltonian import PortHamiltonianField
from liouville.fields.residual import ResidualField, SemidefiniteField, SymmetricField
from liouville.fields.secondorder import SecondOrderField
from liouville.fields.shear import ShearField
from liouville.fields.stochastic import StochasticField

__all__ = [
    "ActivatedField",
    "AntisymmetricField",
    "DrivenField",
    "DropoutField",
    "GatedAntisymmetricField",
    "HamiltonianField",
    "Initial",
    "Normal",
    "PairField",
    "PartitionedDrivenField",
    "PartitionedDropoutField",
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
    "driven",
    "dropout",
]
