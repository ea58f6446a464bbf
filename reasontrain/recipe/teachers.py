"""Teachers: the frozen model that distillation compares with, as weights or as log-probabilities.

`top_k` limits the comparison to the teacher's likeliest ids of each position, which is all that a
store or a server holds; `tail` then decides how all other ids count. With `bucket` they are one
more category of both models, and the divergence is a lower bound of that over the vocabulary; with
`renormalise` both models are renormalised over the ids, which bounds nothing. The formulas are in
`vocab.top_k`. Evidence (`kl_reverse`, `kl_forward`) is computed from the same ids as the loss, so
it is a lower bound too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import Discriminator, Tag

from reasontrain.models import ModelSettings
from reasontrain.types import AtLeastOne, Positive, Scores, Tail

_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class TeacherPromptSettings:
    """Another prompt for the teacher than for the student: privileged context.

    The teacher scores the student's response behind a prompt that may hold the answer, a worked
    solution or a hint. With the student's start weights as the teacher, that is on-policy
    self-distillation. All other settings of `prompt` apply to both.

    Attributes:
        template: text of the teacher's question, with `{problem}`, `{answer}`, `{solution}` and
            columns of the data by name. In a conversation it replaces the last user turn.
        system: system turn of the teacher; None: that of `prompt.system`.
    """

    template: str
    system: str | None = None

    def __post_init__(self) -> None:
        if not _PLACE.search(self.template):
            raise ValueError(
                "`template` names no column of the problem, so the teacher would score every "
                "response behind the same text; write {problem}, {answer} or another column"
            )

    def filled(self, columns: Mapping[str, str]) -> str:
        """The template with the text of each column; raises KeyError for one that is not there.

        Braces in the texts of columns are left as they are.
        """
        return _PLACE.sub(lambda match: columns[match[1]], self.template)


@dataclass(frozen=True, kw_only=True)
class WeightsTeacher(ModelSettings):
    """A teacher whose weights are loaded: in the learner, or in `cluster.teachers` processes.

    Attributes:
        top_k: likeliest ids of the teacher that are compared at each position; null for all. A
            number shows what a stored or served teacher would lose.
        tail: how all other ids count: `bucket` makes them one more category of both models,
            `renormalise` leaves them out.
        prompt: another prompt for the teacher; None: the student's.
    """

    kind: Literal["weights"] = "weights"
    top_k: AtLeastOne | None = None
    tail: Tail = "bucket"
    prompt: TeacherPromptSettings | None = None


@dataclass(frozen=True, kw_only=True)
class StoredTeacher:
    """A teacher whose log-probs of written responses were stored by `reasontrain score`.

    Training reads them and does not load the teacher. It refuses responses that were not scored,
    and a store of another teacher, tokenizer or `top_k`.

    Attributes:
        model: the teacher that scores.
        store: directory of the stored log-probabilities.
        top_k: likeliest ids that are stored for each position; null for all of the vocabulary.
        tail: how all other ids count: `bucket` makes them one more category of both models,
            `renormalise` leaves them out.
        prompt: another prompt for the teacher; None: the student's.
    """

    model: ModelSettings
    store: str
    kind: Literal["stored"] = "stored"
    top_k: AtLeastOne | None = 16
    tail: Tail = "bucket"
    prompt: TeacherPromptSettings | None = None


@dataclass(frozen=True, kw_only=True)
class ServedTeacher:
    """A teacher behind a server with vLLM's completions route, which scores given token ids.

    The server must return `prompt_logprobs`. A request is retried after a transient failure (429,
    5xx, no answer) for `deadline_s` seconds. A key is read from OPENAI_API_KEY.

    Attributes:
        url: address of the API; it usually ends in /v1.
        model: the teacher's name on the server.
        scores: the ids whose log-probs the server is asked for: the teacher's `top_k` likeliest, or
            the `sampled` token alone, from which the reverse KL is estimated (see `vocab.sampled`).
        top_k: likeliest ids of each position; null for all. vLLM returns at most
            `--max-logprobs` (20 by default; -1 for all). Not read with `scores: sampled`.
        tail: how all other ids count: `bucket` makes them one more category of both models,
            `renormalise` leaves them out.
        at_once: requests in flight, of each learner rank.
        deadline_s: limit of one request with its retries, in seconds.
        prompt: another prompt for the teacher; None: the student's.
    """

    url: str
    model: str
    kind: Literal["served"] = "served"
    scores: Scores = "top_k"
    top_k: AtLeastOne | None = 16
    tail: Tail = "bucket"
    at_once: AtLeastOne = 16
    deadline_s: Positive = 600.0
    prompt: TeacherPromptSettings | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherOfValue(ModelSettings):
    """One of several teachers with weights, for the problems that have a value in a column.

    Attributes:
        value: the value, as text.
    """

    value: str


@dataclass(frozen=True, kw_only=True)
class TeacherByColumn:
    """Several teachers with weights, of which a column of the data names one for each problem.

    Attributes:
        column: column of the data, of text or numbers.
        teachers: the teachers, each with its `value` of the column.
        prompt: another prompt for the teachers; None: the student's.
    """

    column: str
    teachers: Annotated[tuple[TeacherOfValue, ...], MinLen(1)]
    kind: Literal["by_column"] = "by_column"
    prompt: TeacherPromptSettings | None = None

    def __post_init__(self) -> None:
        values = [teacher.value for teacher in self.teachers]
        for value in values:
            if values.count(value) > 1:
                raise ValueError(
                    f"`teachers` has two teachers of the value {value!r}; a problem has one"
                )


@dataclass(frozen=True, kw_only=True)
class WeightedTeacher(ModelSettings):
    """One of the teachers of a mixture.

    Attributes:
        weight: its weight, relative to the sum of all.
    """

    weight: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class TeacherMixture:
    """The mixture of several teachers with weights: the weighted mean of their distributions.

    Every teacher scores every response, and the divergence is that from q = sum_j w_j q_j. It is at
    most the weighted mean of the divergences from each teacher, since all divergences here are
    convex in q.

    Attributes:
        teachers: the teachers, each with its `weight`; weights are divided by their sum.
        prompt: another prompt for the teachers; None: the student's.
    """

    teachers: Annotated[tuple[WeightedTeacher, ...], MinLen(2)]
    kind: Literal["mixed"] = "mixed"
    prompt: TeacherPromptSettings | None = None

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights, with sum 1."""
        total = sum(teacher.weight for teacher in self.teachers)
        return tuple(teacher.weight / total for teacher in self.teachers)


def _kind(settings: object) -> str | None:
    """The kind of a section, which is `weights` if it names none."""
    if isinstance(
        settings,
        WeightsTeacher | StoredTeacher | ServedTeacher | TeacherByColumn | TeacherMixture,
    ):
        return settings.kind
    kind = settings.get("kind", "weights") if isinstance(settings, Mapping) else "weights"
    return kind if isinstance(kind, str) else None


Teacher = Annotated[
    Annotated[WeightsTeacher, Tag("weights")]
    | Annotated[StoredTeacher, Tag("stored")]
    | Annotated[ServedTeacher, Tag("served")]
    | Annotated[TeacherByColumn, Tag("by_column")]
    | Annotated[TeacherMixture, Tag("mixed")],
    Discriminator(_kind),
]
"""The settings of a recipe's `teacher`, chosen by `kind`: `weights` unless the recipe says so."""
