"""What a proof needs: its route, its formulas, and that the object which runs is the one that they are about."""
