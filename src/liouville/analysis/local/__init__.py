r"""The local certified radius: how far one input may move before its predicted class can change.

For two inputs x and x' the difference of the states obeys, layer by layer, an *exact* recursion of secants,

    D_{k+1} = D_k + B_k (c_k s + e_k),    s = R_k D_k,    e_k = sigma(u_k + s) - sigma(u_k) - c_k s,

for any numbers c_k, wherever a step is y += B sigma(R y + b). It needs no derivative and no path between the inputs, so
a kink of sigma is no exception. `chain` brings a network into that form and refuses unknown parts. `secant` encloses
sigma(z) - c z for the shipped activations, `box` is the set of all differences, and `rounding` bounds the rounding
errors. `enclosure` encloses the differences of all inputs in a ball, `search` guesses the size of the ball, and
`radius` returns the largest ball in which every class difference was verified to stay positive.
"""

from liouville.analysis.local.radius import local_radius

__all__ = ["local_radius"]
