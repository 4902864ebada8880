"""The report of runs: a page in one file, to look at in a browser."""

from liouville.report.page.document import page, write
from liouville.report.page.record import Record, Recorded

__all__ = ["Record", "Recorded", "page", "write"]
