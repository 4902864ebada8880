"""Ways in which others run a network: compiled, traced, exported. Each takes a module and an example input, and gives a
function of other inputs."""

from __future__ import annotations

__all__ = ["ANY_BATCH", "COMPILERS", "RECORDERS", "inductors_passes"]

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[[Tensor], Tensor]


def inductors_passes(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
    """Inductor without its code generator: the graphs that its pattern matcher leaves, run by eager torch. A matcher
    that forgets a factor is caught within a second, where C++ takes ten."""
    from torch._dynamo.utils import detect_fake_mode
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.fx_passes.post_grad import post_grad_passes
    from torch._inductor.virtualized import V

    def inner(graph: torch.fx.GraphModule, example: Any, **more: Any) -> Any:
        with V.set_fake_mode(detect_fake_mode(example)):
            post_grad_passes(graph, more.get("is_inference", False))
        graph.recompile()

        def run(inputs: list[Any]) -> Any:
            values = list(inputs)
            inputs.clear()
            return graph.forward(*values)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    return compile_fx(graph, example, inner_compile=inner)


def _traced(model: nn.Module, x: Tensor) -> Function:
    return torch.jit.trace(model, x, check_trace=False)


def _checked(model: nn.Module, x: Tensor) -> Function:
    return torch.jit.trace(model, x)


def _deployed(model: nn.Module, x: Tensor) -> Function:
    """Traced, frozen, saved and loaded: what runs without this library."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.trace(model, x, check_trace=False).eval()), file)
    file.seek(0)
    return torch.jit.load(file)


def _made(mode: str) -> Callable[[nn.Module, Tensor], Function]:
    return lambda model, x: make_fx(model, tracing_mode=mode, _allow_non_fake_inputs=True)(x)


def _exported(strict: bool, dynamic: bool) -> Callable[[nn.Module, Tensor], Function]:
    def run(model: nn.Module, x: Tensor) -> Function:
        shapes = ({0: torch.export.Dim("batch", min=2)},) if dynamic else None
        return torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict).module()

    return run


def _onnx(dynamo: bool) -> Callable[[nn.Module, Tensor], Function]:
    def run(model: nn.Module, x: Tensor) -> Function:
        import onnxruntime

        shapes: dict[str, Any] = (
            {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
        )
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "model.onnx")
            torch.onnx.export(model, (x,), file, dynamo=dynamo, input_names=["x"], verbose=False, **shapes)
            session = onnxruntime.InferenceSession(file)
        return lambda z: torch.from_numpy(session.run(None, {"x": z.numpy()})[0])

    return run


def _compiled(**settings: Any) -> Callable[[nn.Module, Tensor], Function]:
    def run(model: nn.Module, x: Tensor) -> Function:
        torch._dynamo.reset()
        return torch.compile(model, **settings)

    return run


RECORDERS: dict[str, Callable[[nn.Module, Tensor], Function]] = {
    "jit.trace": _traced,
    "jit.trace, checked": _checked,
    "jit.trace, saved": _deployed,
    "make_fx": _made("real"),
    "make_fx, fake": _made("fake"),
    "make_fx, symbolic": _made("symbolic"),
    "export": _exported(strict=False, dynamic=False),
    "export, dynamic": _exported(strict=False, dynamic=True),
    "export, strict, dynamic": _exported(strict=True, dynamic=True),
    "onnx, legacy": _onnx(dynamo=False),
    "onnx, dynamo": _onnx(dynamo=True),
}
ANY_BATCH = RECORDERS.keys() - {"make_fx", "make_fx, fake", "export"}
"""Those that take other batch sizes than the example's."""

COMPILERS: dict[str, Callable[[nn.Module, Tensor], Function]] = {
    "inductor's passes": _compiled(backend=inductors_passes),
    "inductor's passes, dynamic": _compiled(backend=inductors_passes, dynamic=True),
    "aot_eager, dynamic": _compiled(backend="aot_eager", dynamic=True),
    "inductor": _compiled(backend="inductor"),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's tracers and exporters print by the way."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
