"""The first paper (P1 in `liouville.verify`): Haber & Ruthotto 2017, 1705.03341."""
