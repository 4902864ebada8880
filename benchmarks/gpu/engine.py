"""The kernels as an engine: what `lv.Fused` would ask on CUDA. One run stores its states; first derivatives only."""

import euler
import shears
import torch

from liouville.backprop.base import Backprop
from liouville.kernels.table import ShearPlan, kernel_for


class Prototype(Backprop):
    """The Triton kernels, on CUDA or under the interpreter; ``how`` are the settings of a launch."""

    def __init__(self, **how):
        object.__setattr__(self, "how", shears.How(**how))

    def __repr__(self):
        return f"Prototype({self.how})"

    def check(self, scheme, field):
        kernel_for(scheme, field, None)

    def run(self, scheme, field, state, theta, h):
        plan = kernel_for(scheme, field, None)
        if isinstance(plan, ShearPlan):
            if plan.taps:
                raise ValueError("the prototype takes vectors, and this field is on images.")
            return _Shears.apply(plan, h, field.layers, self.how, *state, *theta)
        return (_Euler.apply(plan.activation, h, field.layers, self.how, state[0], *plan.weights(theta)),)


class _Shears(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan, h, layers, how, p, q, *theta):
        P, Q = shears.forward(plan, h, layers, p, q, theta, how, keep=any(ctx.needs_input_grad))
        ctx.run = plan, h, layers, how
        ctx.save_for_backward(P, Q, *theta)
        return P[-1].clone(), Q[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gp, gq):
        plan, h, layers, how = ctx.run
        P, Q, *theta = ctx.saved_tensors
        gp, gq, gradients = shears.backward(plan, h, layers, P, Q, gp, gq, theta, how)
        return None, None, None, None, gp, gq, *gradients


class _Euler(torch.autograd.Function):
    @staticmethod
    def forward(ctx, activation, h, layers, how, y, *weights):
        Y = euler.forward(activation, h, layers, y, weights, how)
        ctx.run = activation, h, layers, how
        ctx.save_for_backward(Y, *weights)
        return Y[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        activation, h, layers, how = ctx.run
        Y, *weights = ctx.saved_tensors
        g, gradients = euler.backward(activation, h, layers, Y, g, weights, how)
        return None, None, None, None, g, *gradients
