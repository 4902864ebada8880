"""Models of transformers, built from a config with random weights: trained, adapted and generating on a stack.

Skipped without transformers; the tests of `Trainer` and of adapters also without accelerate and peft.
"""

import copy

import pytest
import torch

import liouville as lv
from measure import near

transformers = pytest.importorskip("transformers")

LAYERS = 6
SMALL = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def llama(**more):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(num_hidden_layers=LAYERS, max_position_embeddings=64, **sizes, **SMALL, **more)
    return _seeded(transformers.LlamaForCausalLM, config)


def gpt2():
    return _seeded(
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=16, n_layer=LAYERS, n_head=4, n_positions=64, **SMALL),
    )


def bert():
    """Encoder layers that are post-norm, and a padding mask."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_hidden_layers": LAYERS}
    return _seeded(transformers.BertForMaskedLM, transformers.BertConfig(max_position_embeddings=64, **sizes, **SMALL))


def _seeded(kind, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).double().train()


MODELS = {
    "llama": (llama, "model", "layers"),
    "gpt2": (gpt2, "transformer", "h"),
    "bert": (bert, "bert.encoder", "layer"),
}
models = pytest.mark.parametrize("name", MODELS)


def built(name, **settings):
    """A model, reversible where there are settings."""
    make, where, layers = MODELS[name]
    model = make()
    holder = model.get_submodule(where)
    if settings:
        setattr(holder, layers, lv.reversible(getattr(holder, layers), **settings))
    return model


def batch(rows=3, length=12):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 40, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def step(model, **more):
    """The loss and all gradients of one training step, called as users do, with the cache that training makes."""
    model.zero_grad()
    torch.manual_seed(3)
    loss = model(**batch(), **more).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


# The norms of Llama compute in float32: a rounding of one of them, 6e-8, in either of two evaluations.
ROUNDING = {"llama": 1e-5, "gpt2": 1e-12, "bert": 1e-12}


@models
@pytest.mark.parametrize("scheme", ["momentum", "coupled"])
def test_gradients_equal_stored(name, scheme):
    """With dropout, padding and the empty cache of a training step; the plain model's names and weights."""
    model, plain = built(name, scheme=scheme), built(name, scheme=scheme, backprop=lv.Stored())
    assert model.state_dict().keys() == built(name).state_dict().keys()
    for a, b in zip(step(model), step(plain), strict=True):
        near(a, b, ROUNDING[name] * max(1.0, float(b.abs().max())))


@models
def test_many_bits_are_the_plain_model(name):
    """The loss is the plain one's but for about 2^-8 of it, and unwrapped exactly."""
    off = []
    plain = float(built(name).eval()(**batch()).loss.detach())
    for bits in (8, 2):
        model = built(name, bits=bits).eval()
        off.append(abs(float(model(**batch()).loss.detach()) - plain))
    assert off[0] < 2**-8 * plain and off[0] < off[1]
    assert float(lv.unwrap(model)(**batch()).loss.detach()) == plain


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_cache_generates_the_same_tokens(name):
    model = built(name, scheme="momentum").eval()
    start = batch()["input_ids"][:1, :5]
    cached, uncached = (
        model.generate(start, max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=use, pad_token_id=0)
        for use in (True, False)
    )
    assert torch.equal(cached, uncached) and cached.shape == (1, 13)


@models
def test_what_a_stack_has_not_got_is_refused(name):
    model = built(name, scheme="momentum")
    for what in ("output_hidden_states", "output_attentions"):
        with pytest.raises(ValueError, match="asks for the output of every layer"):
            model(**batch(), **{what: True})
    model.activation_checkpointing_enable()
    with pytest.warns(UserWarning, match="gradient checkpointing is on inside"):
        model(**batch())


def test_a_filled_cache_is_refused_in_training():
    model = built("llama", scheme="momentum")
    with torch.no_grad():
        filled = model(batch()["input_ids"], use_cache=True).cache
    with pytest.raises(ValueError, match="holds 12 tokens"):
        model(batch()["input_ids"], cache=filled)


# ---- trainers --------------------------------------------------------------------------------------------------


class Tokens(torch.utils.data.Dataset):
    """Rows of tokens, each its own label."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        ids = torch.randint(3, 40, (12,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": ids}


def trained_by_transformers(model, folder, **more):
    pytest.importorskip("accelerate")
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "max_steps": 4,
    }
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **{"save_strategy": "no", **settings, **more},
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Tokens())
    trainer.train()
    return trainer


@pytest.mark.slow
def test_the_trainer_of_transformers(tmp_path):
    """With accumulation; the weights after four steps are those under `Stored`, and a saved model is read as plain."""
    found, expected = built("gpt2", scheme="momentum"), built("gpt2", scheme="momentum", backprop=lv.Stored())
    trainer = trained_by_transformers(found, tmp_path)
    trained_by_transformers(expected, tmp_path)
    start = built("gpt2").state_dict()
    assert any(not torch.equal(w, start[k]) for k, w in found.state_dict().items())
    for (name, a), b in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        assert (a - b).abs().max() < 1e-6, name  # Adam divides by gradients, which may be tiny
    trainer.save_model(str(tmp_path / "saved"))
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "saved").double()
    lv.unwrap(found)
    near(again.eval()(**batch()).logits, found.eval()(**batch()).logits, 1e-12)


@pytest.mark.slow
def test_lightning_trains_a_model_of_transformers():
    """Two steps of SGD by `lightning.Trainer` are those by hand under `Stored`."""
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, rows, _):
            return self.model(**rows).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(Tokens(), batch_size=4)
    found, expected = built("llama", scheme="momentum"), built("llama", scheme="momentum", backprop=lv.Stored())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(Module(found), loader)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for rows in loader:
        optimizer.zero_grad()
        expected(**rows).loss.backward()
        optimizer.step()
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        near(a, b, ROUNDING["llama"])


@pytest.mark.parametrize("first", ["adapters", "stack"])
def test_adapters_are_trained_and_the_rest_is_frozen(first):
    """LoRA by peft, put in before or after the stack; merged, it is the plain model again."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)

    def adapted(**settings):
        torch.manual_seed(5)
        model = built("llama", **(settings if first == "stack" else {}))
        with_adapters = peft.get_peft_model(model, config).double()
        if first == "adapters" and settings:
            model.model.layers = lv.reversible(model.model.layers, **settings)
        return with_adapters

    def gradients(model):
        model.train()(**batch()).loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    model = adapted(scheme="momentum")
    found, expected = gradients(model), gradients(adapted(scheme="momentum", backprop=lv.Stored()))
    assert found.keys() == expected.keys() and len(found) == 4 * LAYERS
    assert all("lora_" in name for name in found)
    for name, g in found.items():
        near(g, expected[name], ROUNDING["llama"])
    adapters = peft.get_peft_model_state_dict(model)
    assert adapters.keys() == peft.get_peft_model_state_dict(adapted()).keys()
    plain = lv.unwrap(copy.deepcopy(model)).merge_and_unload().eval()
    near(plain(**batch()).logits, lv.unwrap(model).eval()(**batch()).logits, ROUNDING["llama"])
