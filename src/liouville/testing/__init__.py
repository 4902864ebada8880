r"""Checks for your own classes: is this a field, a scheme, an engine that the rest of the library can trust?

Each function measures the contract of its class, in float64 and on a copy, and raises an ``AssertionError`` with
the law, the measured and the allowed number, and a hint. Run them once in your own tests. Tolerances count roundings
(a factor times eps times the number of terms); they are not fitted.
"""

from liouville.testing.degrees import check_degrees
from liouville.testing.engines import check_engine
from liouville.testing.fields import check_field
from liouville.testing.schemes import check_scheme

__all__ = ["check_degrees", "check_engine", "check_field", "check_scheme"]
