"""The second paper (P2 in `liouville.verify`): Galimberti et al. 2023, 2105.13205."""
