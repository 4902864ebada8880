"""Plans: everything that decides what a training run computes, as one record that can be written down.

A plan starts from a recipe or from an earlier run's file; `Plan.changed` replaces what was said explicitly. The same
plan gives the same bits on the same machine with the same number of threads.
"""

from __future__ import annotations

__all__ = ["RECIPES", "Plan"]

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from liouville import data
from liouville.data import SOURCES, Split, TableFile
from liouville.facts import Facts
from liouville.fields import Initial, Smooth
from liouville.machine import require_memory
from liouville.names import lookup
from liouville.network import Network
from liouville.renamed import current_names
from liouville.runs.choices import DTYPES, INITS, LIFTS, engine, model_options, require_option
from liouville.runs.parsing import conforming
from liouville.runs.place import device_of, require_device_name
from liouville.runs.summary import flow_in_words, training_in_words
from liouville.schemes import FORMER_NAMES, SCHEMES
from liouville.sketch import sketching
from liouville.train import GaussNewton, Penalty, Settings
from liouville.train.settings import OPTIMIZERS
from liouville.version import __version__
from liouville.zoo import MODELS, Images, classifier, regressor
from liouville.zoo.networks import LiftChoice

RECIPES: dict[str, Callable[[Any], Plan]] = {}
"""By preset, the function from the name of a data set to its plan, or, the default one, from a table in a file.

`liouville.runs.recipes` puts them in."""

_MOST_THREADS = 1024  # more than any machine has; OpenMP ends the process where it cannot start them


@dataclass(frozen=True)
class Plan:
    """One training run: data, network, settings, machine.

    Args:
        data: a name of ``liouville.data.SOURCES``; None for data of one's own, which no name loads, or ``table``.
        data_options: of its loader.
        model, features, layers, T, lift, conv: as for `liouville.classifier`; ``layers`` are those trained last.
        levels: how many depths `liouville.train.multilevel` goes through, each twice the one before; 1 trains at
            ``layers`` only.
        scheme: a name of ``liouville.schemes.SCHEMES`` that replaces the model's own; None keeps it.
        options: of the model only, ``{"gamma": 0.1}`` for example.
        dropout: dropout of every layer's velocity.
        budget: C of `liouville.budgeted`, for every flow; None sets none.
        init: initial weights of the flows.
        settings: of `liouville.train.fit`, or of `liouville.train.gauss_newton`.
        engine: a name of ``liouville.kernels.ENGINES``.
        dtype: ``"float32"``, ``"float64"``, or ``"bfloat16"`` (autocast; weights stay float32).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` and so on, or ``"auto"``: CUDA where there is a device and a layer's
            work is worth it (`liouville.runs.place`), else the CPU.
        threads: of torch; None leaves them as they are.
        seed: of the initial weights and of training; the data has its own (``data_options={"seed": 1}``).
        table: a table in a file, in place of ``data``.
        input_dropout: share of the inputs that the lift does not see during training.

    Raises:
        ValueError: for an unknown name (the nearest one is suggested), or an option that the model does not have.

    Examples:
        >>> plan = Plan.of("double-moons").changed(layers=4, epochs=2)
        >>> plan.network(plan.load().facts()).body.layers
        4
    """

    data: str | None = "swiss-roll"
    data_options: Mapping[str, Any] = field(default_factory=dict)
    model: str = "h2"
    features: int | tuple[int, ...] = 4
    layers: int | tuple[int, ...] = 64
    T: float = 4.0
    levels: int = 1
    scheme: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    lift: LiftChoice = None
    conv: Images | None = None
    dropout: float = 0.0
    budget: float | None = None
    init: Initial = Smooth()
    settings: Settings | GaussNewton = Settings()
    engine: str = "auto"
    dtype: str = "float32"
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    table: TableFile | None = None
    input_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.data is not None:
            lookup(SOURCES, self.data, "data set")
            if self.table is not None:
                raise ValueError(f"a plan has one source of data, got {self.data!r} and {self.table.path}; give one.")
        elif self.data_options:
            raise ValueError(f"data of one's own have no options, got {dict(self.data_options)}; leave them out.")
        lookup(MODELS, self.model, "model")
        if self.scheme in FORMER_NAMES:
            object.__setattr__(self, "scheme", FORMER_NAMES[self.scheme])
        for value, known, what in (
            (self.scheme, SCHEMES, "scheme"),
            (self.lift, LIFTS, "lift"),
            (self.dtype, DTYPES, "dtype"),
        ):
            if value is not None:
                lookup(dict.fromkeys(known), value, what)
        require_device_name(self.device)
        engine(self.engine)
        if isinstance(self.settings, GaussNewton) and self.dtype == "bfloat16":
            raise ValueError("gauss-newton needs float32 or float64, got bfloat16; a line search compares digits.")
        for name in self.options:
            require_option(self.model, name)
        for name in ("features", "layers"):
            if getattr(self, name) == ():
                raise ValueError(f"{name} must be a number, or one for each flow, got none.")
        self._first_layers()
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}.")
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise ValueError(f"threads must be at most {_MOST_THREADS}, got {self.threads}.")

    @classmethod
    def of(cls, data: str | TableFile = "swiss-roll", preset: str = "default") -> Plan:
        """The plan of a data set's recipe; a table in a file is read, as its rows decide how long to train.

        Raises:
            ValueError: for an unknown name, or a preset that the data set does not have; as `TableFile.load`.
        """
        if isinstance(data, TableFile):
            if preset != "default":
                raise ValueError(f"the preset {preset!r} is not for a table of your own; leave --preset out.")
            return RECIPES[preset](data)
        lookup(SOURCES, data, "data set")
        return lookup(RECIPES, preset, "preset")(data)

    def changed(self, **values: Any) -> Plan:
        """This plan with some values replaced.

        Args:
            values: fields of the plan, of its settings and of their `Penalty`, and options of the model, all by their
                own name; data options are merged. ``init`` may be a name. ``optimizer="gauss-newton"`` asks for
                `GaussNewton` settings, whose iterations are ``epochs`` here, and float64. None means: as it was.
                Options that another model does not have are dropped with the old one.

        Raises:
            ValueError: if a value does not fit, or the model has no such option.
        """
        given = {k: v for k, v in current_names(Settings, values, warn=True).items() if v is not None}
        if "model" in given and given["model"] != self.model:
            kept = {k: v for k, v in self.options.items() if k in model_options(given["model"])}
            given.setdefault("options", kept)
        if isinstance(given.get("init"), str):
            given["init"] = lookup(INITS, given["init"], "initialisation")()
        if "table" in given:
            given["data"] = None
        elif "data" in given:
            given["table"] = None
        before = self.data_options if given.get("data", self.data) == self.data else {}
        given["data_options"] = {**before, **given.get("data_options", {})}
        own = {f.name for f in fields(self)} & given.keys()
        penalty = {f.name: given[f.name] for f in fields(Penalty) if f.name in given}
        before = given.get("settings", self.settings)
        settings = _settings(before, given)
        if penalty:
            settings = replace(settings, penalty=replace(settings.penalty, **penalty))
        if isinstance(settings, GaussNewton) and not isinstance(before, GaussNewton) and "dtype" not in given:
            given["dtype"] = "float64"
            own |= {"dtype"}
        options = {k: v for k, v in given.items() if k not in own | _SETTINGS | penalty.keys()}
        model = given.get("model", self.model)
        for name in options:
            require_option(model, name)
        changes = {name: given[name] for name in own}
        changes["options"] = {**given.get("options", self.options), **options}
        changes["settings"] = settings
        return replace(self, **changes)

    @property
    def subject(self) -> str:
        """What the data are called: by their name, or their file's; ``own`` where nothing loads them."""
        return self.data or ("own" if self.table is None else self.table.name)

    def load(self, notes: list[str] | None = None) -> Split:
        """The data, in the plan's floating-point type.

        Args:
            notes: takes sentences on what had to be guessed in a table.

        Raises:
            ValueError: they are one's own, which no name loads; or as `liouville.data.load`, or `load_table` there.
        """
        if self.table is not None:
            return self.table.load(DTYPES[self.dtype], notes)
        if self.data is None:
            raise ValueError(
                "this plan is for data of one's own, which no name loads; give the Split: runs.train(plan, split)."
            )
        return data.load(self.data, dtype=DTYPES[self.dtype], **self.data_options)

    def network(self, facts: Facts | Split, generator: torch.Generator | None = None) -> Network:
        """The network with its initial weights, on the plan's device and in its type; with levels, the shallowest.

        Args:
            facts: of the data that it is for, ``split.facts()``, which the network keeps; a `Split` states its own.
            generator: source of the initial weights; one with the plan's ``seed`` if None.

        Raises:
            ValueError: the parts do not fit together, or training them takes more memory than there is.
        """
        facts = facts.facts() if isinstance(facts, Split) else facts
        device = device_of(self.device, self._work(facts))
        if device.type == "cpu" and not sketching():
            self._require_memory(facts)
        network = self._assembled(facts, self._first_layers(), generator)
        network.facts = facts
        return network.to(device=device, dtype=DTYPES[self.dtype])

    def _assembled(
        self, facts: Facts, layers: int | tuple[int, ...], generator: torch.Generator | None = None
    ) -> Network:
        shape = facts.shape
        if len(shape) not in (1, 3):
            raise ValueError(f"inputs must be vectors or images (channels, height, width), got {shape}.")
        if isinstance(facts.classes, tuple):
            raise ValueError(
                f"{facts.name} has {len(facts.classes)} targets of classes, which a network on the nodes of a graph "
                "predicts (liouville agents); here train a network for each."
            )
        make = classifier if facts.classes else regressor
        return make(
            functools.partial(MODELS[self.model], init=self.init, **self.options),
            shape[0] if len(shape) == 1 else shape,
            facts.classes or facts.outputs,
            self.features,
            layers,
            self.T,
            scheme=None if self.scheme is None else SCHEMES[self.scheme](),
            lift=self.lift,
            conv=(self.conv or Images()) if len(shape) == 3 else None,
            dropout_rate=self.dropout,
            input_dropout=self.input_dropout,
            budget=self.budget,
            generator=generator or torch.Generator().manual_seed(self.seed),
            backprop=engine(self.engine),
        )

    def _require_memory(self, facts: Facts) -> None:
        """Raise where training keeps more bytes than there are: weights, gradients, what the optimiser has of them.

        The weights are counted on networks of one and two layers a flow, before the network itself is made.
        """
        flows = 1 if isinstance(self.features, int) else len(self.features)
        depths = (self.layers,) * flows if isinstance(self.layers, int) else self.layers
        shallow = (1,) * len(depths)
        deeper = [(*shallow[:i], 2, *shallow[i + 1 :]) for i in range(len(depths))]
        first, *more = (_weights(self._assembled(facts, N if flows > 1 else N[0])) for N in (shallow, *deeper))
        weights = first + sum((N - 1) * (count - first) for N, count in zip(depths, more, strict=True))
        copies = 8 if isinstance(self.settings, GaussNewton) else 3 if self.settings.optimizer == "sgd" else 4
        what = f"{weights:,} weights, their gradients and what the optimizer keeps of them"
        size = DTYPES[self.dtype].itemsize
        require_memory(weights * copies * size, what, "take fewer layers or features")
        if self.engine in ("stored", "batch-last") and isinstance(self.features, int):
            batch = min(self.settings.batch_size or facts.train_samples, facts.train_samples)
            what = f"the states of {batch:,} samples after each of {sum(depths):,} layers"
            advice = "take a smaller batch, or the engine checkpointed"
            require_memory(batch * sum(depths) * self.features * size, what, advice)

    @property
    def epochs(self) -> int:
        """Passes over the training part, or iterations of Gauss-Newton."""
        return self.settings.iterations if isinstance(self.settings, GaussNewton) else self.settings.epochs

    def fit_settings(self) -> Settings | GaussNewton:
        """The settings, with what the plan decides: seed and autocast."""
        if isinstance(self.settings, GaussNewton):
            return replace(self.settings, seed=self.seed)
        return replace(self.settings, seed=self.seed, bfloat16=self.dtype == "bfloat16")

    def describe(self, network: Network) -> str:
        """Two lines: the network's fields, schemes, steps and parameters; how it is trained."""
        device = next(network.parameters()).device.type
        levels = f"{self.levels} levels, the last of {self.layers} layers, each at most " if self.levels > 1 else ""
        return (
            f"{self.model}: {'; then '.join(map(flow_in_words, network.flows()))}; "
            f"{sum(p.numel() for p in network.parameters()):,} parameters\n"
            f"{levels}{training_in_words(self.settings)}; {self.dtype} on {device}, {torch.get_num_threads()} threads, "
            f"engine {self.engine}, seed {self.seed}"
        )

    def as_dict(self) -> dict[str, Any]:
        """A JSON value that `from_dict` turns into an equal plan."""
        init = {"name": next(k for k, v in INITS.items() if v is type(self.init)), **asdict(self.init)}
        settings = {"optimizer": self.settings.optimizer, **asdict(self.settings)}
        return asdict(replace(self, init=Smooth())) | {"init": init, "settings": settings}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], version: str = __version__) -> Plan:
        """The plan that `as_dict` wrote, in this version or an earlier one, whose plans lack what is new.

        Args:
            value: of JSON.
            version: of liouville that wrote it, for the sentence of an error.

        Raises:
            ValueError: if something is unknown or of the wrong kind.
        """
        try:
            given, init, settings = conforming(cls, value)
        except ValueError as error:
            wrote = "" if version == __version__ else f", written by liouville {version},"
            raise ValueError(f"the plan{wrote} is not one of liouville {__version__}: {error}") from error
        given["init"] = lookup(INITS, init.pop("name"), "initialisation")(**init)
        if "penalty" in settings:
            settings["penalty"] = Penalty(**settings["penalty"])
        second = settings["optimizer"] == GaussNewton.optimizer and settings.pop("optimizer")
        given["settings"] = (GaussNewton if second else Settings)(**settings)
        if given.get("conv") is not None:
            given["conv"] = Images(**given["conv"])
        if given.get("table") is not None:
            given["table"] = TableFile.from_dict(given["table"])
        for name in {"features", "layers"} & given.keys():
            given[name] = tuple(given[name]) if isinstance(given[name], list) else given[name]
        return cls(**given)

    def _first_layers(self) -> int | tuple[int, ...]:
        """The depth that training begins with."""
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}.")
        if self.levels > 60:
            raise ValueError(f"levels must be at most 60, each twice as deep as the one before, got {self.levels}.")
        times = 2 ** (self.levels - 1)
        depths = (self.layers,) if isinstance(self.layers, int) else self.layers
        if any(N % times for N in depths):
            raise ValueError(
                f"{self.levels} levels end with {times} times the layers they began with, so layers must be a multiple "
                f"of {times}, got {', '.join(map(str, depths))}."
            )
        return self.layers // times if isinstance(self.layers, int) else tuple(N // times for N in self.layers)

    def _work(self, facts: Facts) -> int:
        """Multiplications of one product K y over a batch, in the first flow."""
        features = self.features if isinstance(self.features, int) else self.features[0]
        batch = min(self.settings.batch_size or facts.train_samples, facts.train_samples)
        images = (self.conv or Images()) if len(facts.shape) == 3 else None
        pixels = math.prod(facts.shape[1:]) // images.pool**2 if images else 1
        return batch * pixels * features**2 * (images.kernel**2 if images else 1)


def _weights(network: Network) -> int:
    return sum(p.numel() for p in network.parameters())


_SETTINGS = {f.name for kind in (Settings, GaussNewton) for f in fields(kind)}


def _settings(before: Settings | GaussNewton, given: Mapping[str, Any]) -> Settings | GaussNewton:
    """The settings with what was given, of the kind that belongs to the optimiser; another kind's are left behind."""
    optimizer = given.get("optimizer", before.optimizer)
    lookup(dict.fromkeys((*OPTIMIZERS, GaussNewton.optimizer)), optimizer, "optimizer")
    kind: type[Settings] | type[GaussNewton] = GaussNewton if optimizer == "gauss-newton" else Settings
    start = before if isinstance(before, kind) else kind()
    mine = {f.name for f in fields(kind)} - {"penalty"}
    named = {name: value for name, value in given.items() if name in _SETTINGS - {"penalty"}}
    if kind is GaussNewton:
        named.pop("optimizer", None)
        if "epochs" in named:
            named["iterations"] = named.pop("epochs")
    elif "epochs" in named and "steps" not in named:
        named["steps"] = None  # which would count in place of them
    for name in named.keys() - mine:
        raise ValueError(
            f"{name} is no setting of the optimizer {optimizer!r}; it has {', '.join(sorted(mine - {'optimizer'}))}."
        )
    return replace(start, **named)
