"""The predecessor of the second paper (P3 in `liouville.verify`): 2104.13166."""
