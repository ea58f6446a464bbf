"""The settings reference: one table per section of a recipe, from its settings classes.

A key's meaning is its entry under `Attributes:` in the docstring of its class or of a base, else
the sentence there that names it, else its entry in `MEANINGS`.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from reasontrain.plugins import component_of
from reasontrain.recipe import Recipe

TOP_LEVEL = {
    "name": "name of the run, and of its folder in `out`",
    "steps": "number of steps: batches that are sampled and learned from",
    "model": "the policy: the model that is trained",
    "task": "the problems, demonstrations or pairs; see [Data](../data.md)",
    "objective": "the loss of a token, a response or a pair",
    "loss_aggregation": "the denominator of the loss; see [Concepts](../concepts.md)",
    "learn": "batch, optimiser and learning rate",
    "seed": "seed of everything that is random",
    "out": "the folder of runs",
    "baseline": "the run in the same `out` that the report compares with",
    "teacher": "the model that distillation compares with",
    "reference": "the frozen model of a KL penalty, DPO or Rho-1; null: the start weights",
    "history": "the earlier version of the policy that ssToken compares with",
    "importance": "the attention that ssToken reads",
    "unconditional": "the reference of PRIOR, which does not see the condition",
    "prompt": "how a problem becomes a prompt; see [Chat templates](../templates.md)",
    "sample": "sampling of rollouts; null: learn from demonstrations",
    "reward": "values of right and wrong answers; see [Rewards](../rewards.md)",
    "advantage": "from the rewards of a group to advantages",
    "reward_combination": "one reward of several numbers; see [Rewards](../rewards.md)",
    "overlong": "penalty of responses near the length limit; null: none",
    "token_advantage": "from the advantage of a rollout to those of its tokens",
    "correction": "weights for a sampler whose probabilities differ from the learner's",
    "rollout_filter": "the rollouts that are learned from",
    "token_selection": "the rule that gives every token its weight",
    "evaluate": "evaluation during training; see [Evaluation](../evaluation.md)",
    "checkpoint": "checkpoints, and stopping",
    "resume": "changes that a resumed run accepts",
    "track": "where metrics go",
    "cluster": "processes and GPUs; see [Cluster](../cluster.md)",
    "evidence": "kind of evidence -> its file, or `column:NAME` of the data; name -> plug-in",
    "stages": "what runs before the first step, in order",
}
"""Key of a recipe -> meaning."""

MEANINGS = {
    "name": "name; a later stage refers to its files as `stage:NAME/FILE`",
    "path": "a file, or a pattern of several, read in the order of their names",
    "hub": "id of a data set on the Hugging Face hub, instead of `path`",
    "subset": "configuration of the hub data set",
    "split": "split of the data set",
    "revision": "commit, branch or tag of the hub data set",
    "limit": "read only this many rows, from the start",
    "columns": "names of columns that differ from the usual ones",
    "num_problems": "number of generated problems",
    "seed": "seed of the generated problems",
    "beta1": "decay of the mean of the gradient",
    "beta2": "decay of the mean of its square",
    "eps": "added to the divisor",
    "weight_decay": "decoupled weight decay, as a multiple of the learning rate",
    "momentum": "decay of the momentum",
    "rank": "rank of the adapters",
    "alpha": "adapters are scaled by alpha / rank",
    "targets": "names of the linear layers that get adapters",
    "keep_ratio": "share that is kept: a number, or `{init, final}` for a line over the run",
    "std_floor": "rollouts whose advantages are all below it are not kept",
    "divergence": "the divergence between student and teacher",
    "beta": "strength of the implicit KL constraint",
    "clip_low": "lower bound of the ratio, as a distance from 1",
    "clip_high": "upper bound of the ratio, as a distance from 1",
    "gamma": "scale of the noise, in root mean squares of the embeddings in use",
    "tau": "temperature of the mixture",
    "clip_quantile": "entropies are clipped at this quantile",
    "decay": "share of the average that each step keeps",
    "suites": "the suites, each as below",
    "before": "also evaluate before the first step",
    "model": "the smaller model",
    "condition": "the input that the reference does not see",
    "header": "text before each response if the condition is the prompt",
    "tensorboard": "write TensorBoard events",
    "service": "also send metrics to this service",
    "project": "project at the service",
    "pairs": "file of preference pairs",
    "rollouts": "file of graded rollouts",
    "positive": "the model that was tuned on right solutions",
    "negative": "the model that was tuned on wrong solutions",
    "ce_beta": "weight of the negative model",
    "plausible": "see the text above",
    "demonstrations": "file to tune on",
    "learn": "as in the recipe",
    "lora": "as in `model`",
    "task": "problems, as in the recipe",
    "checkpoint": "as in the recipe",
    "hidden_size": "width of the hidden states",
    "intermediate_size": "width of the feed-forward layers",
    "num_layers": "number of layers",
    "num_heads": "number of attention heads",
    "num_kv_heads": "number of key-value heads",
    "head_dim": "size of a head",
    "vocab_size": "rows of the embedding matrix",
    "tied": "embeddings and head are one matrix",
    "problem": "column of the problem",
    "answer": "column of the gold answer",
    "solution": "column of the worked solution",
    "id": "column of the row's id",
    "messages": "column of the conversation",
    "prompt": "column of the prompt",
    "response": "column of the response",
    "chosen": "column of the better response",
    "rejected": "column of the worse response",
    "right": "reward of a right answer",
    "boxed": "reward of a wrong answer in a closed box",
    "wrong": "reward of any other answer",
    "scope": "what the share is taken of: the rollouts of the step, or of each group",
    "mode": "the function that gives the weights",
    "low": "lowest weight of mode `contrast`",
    "high": "highest weight of mode `contrast`",
}
"""Key -> meaning, for keys that no docstring names."""

PLUGIN = "[a plug-in](../extending.md)"
SHARED_TITLES = {
    "Suite": "evaluate.suites",
    "LinearSchedule": "keep_ratio",
    "Shape": "model.shape",
    "Sampling": "evaluate.suites.sampling",
    "PairColumns": "task.columns` of `pairs",
    "RolloutColumns": "task.columns` of `rollouts",
    "TeacherPromptSettings": "teacher.prompt",
    "TeacherOfValue": "teacher.teachers` of `by_column",
    "WeightedTeacher": "teacher.teachers` of `mixed",
}
"""Settings classes that stand in several places -> the title of their table."""


def settings_reference() -> str:
    """The tables of all sections, in the order of the recipe's keys."""
    return "\n\n".join(_Reference().sections())


class _Reference:
    """A walk over the settings classes; each class has one table, after that of its first user."""

    def __init__(self) -> None:
        self._titles: dict[type, str] = {Recipe: "Top level"}

    def sections(self, cls: type = Recipe) -> Iterator[str]:
        """A heading, the docstring's prose and a table for a class and those that it uses first."""
        children = [
            child
            for key, hint in settings_hints(cls).items()
            for child in self._new(cls, key, hint)
        ]
        prose = "" if cls is Recipe else f"{own_prose(cls)}\n\n"
        yield f"## {self._titles[cls]}\n\n{prose}{self._table(cls)}"
        for child in children:
            yield from self.sections(child)

    def _new(self, parent: type, key: str, hint: object) -> list[type]:
        """The classes of a key that have no title yet, which they get."""
        members = list(classes_of(hint))
        new = [member for member in members if member not in self._titles]
        path = key if parent is Recipe else f"{self._path(parent)}.{key}"
        for member in new:
            title = SHARED_TITLES.get(member.__name__, path)
            kind = kind_of(member)
            chosen = f": `kind: {kind}`" if kind and len(members) > 1 else ""
            self._titles[member] = f"`{title}`{chosen}"
        return new

    def _path(self, cls: type) -> str:
        return self._titles[cls].strip("`").partition("`")[0]

    def _table(self, cls: type) -> str:
        rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        hints = settings_hints(cls)
        for field in fields(cls):
            if field.name == "kind" or field.name not in hints:
                continue
            cells = (
                f"`{field.name}`",
                self._type(hints[field.name]),
                default_of(field),
                meaning(cls, field.name),
            )
            rows.append(f"| {' | '.join(cells)} |")
        return "\n".join(rows) if len(rows) > 2 else "No further keys."

    def _type(self, hint: object) -> str:
        """A type as a reader of YAML would say it."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            bounds = [text for part in arguments[1:] if (text := bound(part))]
            return " ".join([self._type(arguments[0]), *bounds])
        if origin is Literal:
            return ", ".join(f"`{_scalar(value)}`" for value in arguments)
        if origin in (Union, types.UnionType):
            plain = [a for a in arguments if a is not types.NoneType]
            if any(component_of(a) for a in plain):
                own = [a for a in plain if not component_of(a)]
                return f"{self._type(Union[tuple(own)])} or {PLUGIN}"  # noqa: UP007
            if len(plain) > 1 and all(a in self._titles for a in plain):
                shown = ", ".join(self._link(a, f"`{kind_of(a) or a.__name__}`") for a in plain)
            else:
                shown = " or ".join(self._type(a) for a in plain)
            return f"{shown} or `null`" if types.NoneType in arguments else shown
        if origin is tuple:
            return f"list of {self._type(arguments[0])}"
        if origin is dict:
            return f"mapping of text to {self._type(arguments[1])}"
        if isinstance(hint, type) and hint in self._titles:
            return self._link(hint, "section")
        return {int: "integer", float: "number", str: "text", bool: "`true`, `false`"}[hint]  # type: ignore[index]

    def _link(self, cls: type, text: str) -> str:
        return f"[{text}](#{slug(self._titles[cls])})"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def settings_hints(cls: type) -> dict[str, object]:
    """Types of the keys of a settings class, without constants of the class."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def classes_of(hint: object) -> Iterator[type]:
    """The settings classes in a type."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
        return
    for member in get_args(hint):
        yield from classes_of(member)


def kind_of(cls: type) -> str | None:
    """The value of `kind` that chooses a class."""
    hint = settings_hints(cls).get("kind")
    return None if hint is None else str(get_args(hint)[0])


def bound(constraint: object) -> str:
    """A bound on a number in signs."""
    signs = {"ge": "≥", "gt": "\\>", "le": "≤", "lt": "\\<"}
    for name, sign in signs.items():
        if (value := getattr(constraint, name, None)) is not None:
            return f"{sign} {value}" if value < 2**60 else ""
    return ""


def default_of(field: Field[Any]) -> str:
    """The default of a key in YAML; "required" without one."""
    if field.default_factory is not MISSING:
        value = field.default_factory()
        if not is_dataclass(value):
            return "`{}`" if value == {} else f"`{_scalar(value)}`"
        chosen = getattr(value, "kind", None)
        if chosen is not None:
            return f"`{{kind: {chosen}}}`"
        return changed_from_defaults(value) or "its defaults"
    if field.default is MISSING:
        return "required"
    if is_dataclass(field.default):
        return changed_from_defaults(field.default)
    return f"`{_scalar(field.default)}`"


def changed_from_defaults(settings: object) -> str:
    """The keys of a settings object that differ from the defaults of its class, in YAML."""
    own = {f.name: f.default for f in fields(settings)}  # type: ignore[arg-type]
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}  # type: ignore[arg-type]
    changed = {key: value for key, value in values.items() if value != own[key] and key != "kind"}
    return f"`{_scalar(changed)}`" if changed else ""


def _scalar(value: object) -> str:
    """A value as YAML on one line."""
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("...").strip().replace("|", "\\|")


def prose_of(cls: type) -> str:
    """The docstring of a class without its attributes; empty for one that dataclasses wrote."""
    text = cls.__dict__.get("__doc__") or ""
    if text.startswith(f"{cls.__name__}("):
        return ""
    return re.split(r"^Attributes:$", inspect.cleandoc(text), flags=re.MULTILINE)[0].strip()


def own_prose(cls: type) -> str:
    """The prose of a class, and of its bases that are settings."""
    texts = (prose_of(c) for c in reversed(cls.__mro__[:-1]) if is_dataclass(c))
    return "\n\n".join(dict.fromkeys(text for text in texts if text))


def attributes_of(cls: type) -> dict[str, str]:
    """Entries under `Attributes:` of a class's own docstring."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    _, _, listed = text.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def described(cls: type, key: str) -> str | None:
    """The meaning of a key in the docstrings of its class and bases."""
    for base in cls.__mro__:
        if entry := attributes_of(base).get(key):
            return entry
    for base in cls.__mro__[:-1]:
        prose = " ".join(prose_of(base).split())
        for sentence in re.split(r"(?<=[.;])\s(?=[A-Z`])", prose):
            if re.search(rf"`{key}\b", sentence):
                return sentence
    return None


def meaning(cls: type, key: str) -> str:
    """The meaning of a key as a cell of a table; raises AssertionError where nothing states it."""
    text = TOP_LEVEL.get(key) if cls is Recipe else described(cls, key) or MEANINGS.get(key)
    assert text, f"no docstring says what `{key}` of {cls.__name__} is, and MEANINGS does not"
    return text.rstrip(".;").replace("|", "\\|")
