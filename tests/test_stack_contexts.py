"""Reversible stacks where training puts them: each way equals one process under `Stored`, to rounding."""

import io
import threading

import pytest
import torch
import torch.multiprocessing as mp

import liouville as lv
import stack_processes as processes
from measure import near
from stacks import residual_mlp, tokens, transformer

WIDE = lv.Reversible(exact=True, compensated=True)


@pytest.fixture(scope="module")
def gradients_of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(processes.run, args=(2, str(folder)), nprocs=2, join=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("way", processes.WAYS)
@pytest.mark.parametrize("name", processes.STACKS)
def test_two_processes_equal_one(gradients_of_ranks, name, way):
    """Also where gradients are accumulated, and where the last layers take no part."""
    scheme, _ = processes.STACKS[name]
    expected = processes.step(processes.Model(scheme, lv.Stored()), processes.inputs(), way)
    for rank in range(2):
        for a, b in zip(gradients_of_ranks[rank][name, way], expected, strict=True):
            near(a, b, 1e-13 * max(1.0, float(b.abs().max())))
    assert max(float(b.abs().max()) for b in expected) > 0.01


# ---- training --------------------------------------------------------------------------------------------------


def _loss(out):
    return out.square().mean()


def _plain(stack, optimizer):
    for j in range(3):
        _loss(stack(tokens(seed=j))).backward()
        optimizer.step()
        optimizer.zero_grad()


def _accumulated(stack, optimizer):
    for j in range(3):
        for i in range(2):
            (_loss(stack(tokens(seed=2 * j + i))) / 2).backward()
        torch.nn.utils.clip_grad_norm_(stack.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()


def _inside(stack, optimizer):
    """Each parameter has an optimiser of its own, which steps inside of the backward pass."""
    own = {p: torch.optim.SGD([p], lr=0.1, momentum=0.5) for p in stack.parameters() if p.requires_grad}

    def hook(p):
        own[p].step()
        p.grad = None

    handles = [p.register_post_accumulate_grad_hook(hook) for p in own]
    for j in range(3):
        _loss(stack(tokens(seed=j))).backward()
    for handle in handles:
        handle.remove()


def _in_a_thread(stack, optimizer):
    """Forward in one thread, backward in another."""
    for j in range(3):
        loss = _loss(stack(tokens(seed=j)))
        worker = threading.Thread(target=loss.backward)
        worker.start()
        worker.join()
        optimizer.step()
        optimizer.zero_grad()


def _saved_between(stack, optimizer):
    """Weights, optimiser and random stream go through a file after every step."""
    for j in range(3):
        _loss(stack(tokens(seed=j))).backward()
        optimizer.step()
        optimizer.zero_grad()
        file = io.BytesIO()
        torch.save([stack.state_dict(), optimizer.state_dict(), torch.get_rng_state()], file)
        with torch.no_grad():
            for p in stack.parameters():
                p.zero_()
        file.seek(0)
        weights, moments, stream = torch.load(file)
        stack.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        torch.rand(7)
        torch.set_rng_state(stream)


def _half(stack, optimizer):
    """Under autocast in half precision, with a scaled loss."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for j in range(3):
        with torch.autocast("cpu", torch.float16):
            loss = _loss(stack(tokens(seed=j).float()))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def _trained(way, engine, dropout=0.2, dtype=torch.float64):
    """The weights, in one row, after three steps of a stack with dropout, shared and frozen blocks."""
    stack = lv.reversible(transformer(dropout=dropout).to(dtype), backprop=engine)
    torch.manual_seed(7)
    way(stack, torch.optim.SGD(stack.parameters(), lr=0.1, momentum=0.5))
    return torch.cat([w.detach().double().flatten() for w in stack.parameters()])


@pytest.mark.parametrize("way", [_plain, _accumulated, _inside, _in_a_thread, _saved_between])
def test_three_steps_equal_those_under_stored(way):
    near(_trained(way, WIDE), _trained(way, lv.Stored()), 1e-12)


def test_scaled_losses_in_half_precision():
    """The weights are at most 1.15 times as far off those of float64 as under `Stored`."""
    truth = _trained(_plain, lv.Stored(), dropout=0.0)
    off = [float((_trained(_half, e, 0.0, torch.float32) - truth).norm()) for e in (WIDE, lv.Stored())]
    assert 0 < off[0] <= 1.15 * off[1] < 1e-3 * float(truth.norm()), off


def test_averaged_weights_run_the_same_stack():
    """`AveragedModel` copies the stack."""
    stack = lv.reversible(residual_mlp())
    averaged = torch.optim.swa_utils.AveragedModel(stack)
    averaged.update_parameters(stack)
    near(averaged(tokens()), stack(tokens()), 0.0)
    assert type(averaged.module) is type(stack)
