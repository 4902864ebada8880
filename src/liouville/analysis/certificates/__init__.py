"""Certificates: the claims about a flow, its steps, its inverse and a network's predictions, and what was measured."""

from liouville.analysis.certificates.certificate import Certificate, certify
from liouville.analysis.certificates.claim import Claim, Status

__all__ = ["Certificate", "Claim", "Status", "certify"]
