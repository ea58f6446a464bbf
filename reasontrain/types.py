"""Core data types: Problem, Rollout, Batch, BatchTotals, Losses and their parts.

The name of a tensor ends in its shape: B rollouts, T tokens, G rollouts of a group, P pairs, V
vocabulary, N flattened tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from torch import Tensor

from reasontrain.algo.evidence import EVIDENCE

Ratio = Annotated[float, Gt(0), Le(1)]
"""A fraction in (0, 1]."""
Probability = Annotated[float, Ge(0), Le(1)]
AtLeastOne = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Vocabulary = Literal["auto", "torch", "triton", "full_logits"]
"""Backends of the package `vocab`, which computes everything that is as wide as the vocabulary."""
Scores = Literal["top_k", "sampled"]
"""The ids of which a server gives a teacher's log-probs: its likeliest, or the sampled token."""
Tail = Literal["bucket", "renormalise"]
"""The treatment of all ids outside of a teacher's K likeliest (see `vocab.top_k`)."""


LABEL_LENGTH = 80


class UserError(ValueError):
    """An error that the user can correct: one sentence without a traceback; exit code 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, to follow an unknown word, or "" if no known one is similar."""
    similar = get_close_matches(word, list(known), n=1)
    return f"; did you mean `{similar[0]}`?" if similar else ""


def printable(text: str) -> str:
    """A text of a user's data as at most 80 characters of one line, others escaped."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return line if len(line) <= LABEL_LENGTH else f"{line[: LABEL_LENGTH - 3]}..."


def listed(names: Iterable[object]) -> str:
    """Names of a user's columns or fields on one line, at most 20 of them."""
    lines = [printable(str(name)) for name in names]
    more = [f"and {len(lines) - 20} more"] if len(lines) > 20 else []
    return ", ".join(lines[:20] + more) or "nothing"


class RunError(RuntimeError):
    """A run that started correctly and cannot continue: shown as one sentence; exit code 1."""


class LostError(RunError):
    """A process of a run died or does not answer; it can be started again."""

    def __init__(self, role: str, rank: int, message: str) -> None:
        super().__init__(message)
        self.role = role
        self.rank = rank


class EngineLostError(RunError):
    """A process of a sampler's engine died; the sampler is of no use, and can be started again."""


Message = dict[str, object]
"""One turn of a conversation, in the format of chat templates.

`role` is always there, `content` is text, a list of parts or None. Every other field (`tool_calls`,
`reasoning_content`, `name`, ...) reaches the template as it is, except `loss_weight`, the factor of
the losses of the turn's tokens.
"""


def text_of(message: Message) -> str:
    """The text of a turn: its content, or the texts of the content's parts; "" for None."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


@dataclass(frozen=True, kw_only=True)
class Image:
    """An encoded image: the path of a file that every process can read, or the bytes of that file.

    It is decoded to pixels only when a model needs it.
    """

    path: str | None = None
    content: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem and the data to verify an answer to it.

    Attributes:
        id: identifier within its data set.
        prompt: plain text or a conversation.
        answer: gold answer; "" if nothing can be verified.
        solution: worked demonstration as text; "" if there is none.
        reply: worked demonstration as turns, the first of them the assistant's; replaces
            `solution`. Turns of a tool or a user may stand between the assistant's.
        learn_history: the prompt and the reply are one written conversation, so that turns of the
            assistant in the prompt are learned too.
        loss_weight: factor of the losses of the demonstration, one for all of its tokens or one per
            token that is trained.
        tools: schemas of the tools that the model may call, for the chat template.
        template_kwargs: further variables for the chat template.
        source: file and line of the row, for error messages; "" if the problem has none.
        image: image that the prompt shows.
        about: level, subject and similar metadata.
    """

    id: str
    prompt: str | tuple[Message, ...]
    answer: str = ""
    solution: str = ""
    reply: tuple[Message, ...] = ()
    learn_history: bool = False
    loss_weight: float | tuple[float, ...] = 1.0
    tools: tuple[Mapping[str, object], ...] = ()
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    image: Image | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The prompt as text: of a conversation, the texts of its turns."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(text_of(message) for message in self.prompt)

    @property
    def where(self) -> str:
        """The problem in error messages: its label, with file and line if they are known."""
        return f"{self.source}: {self.label}" if self.source else self.label

    @property
    def label(self) -> str:
        """The problem in error messages: its id as one short line, whatever the data has there."""
        return f"problem {printable(self.id)}"


class ThoughtState(NamedTuple):
    """The state in which a prompt leaves the chain of thought.

    Attributes:
        open_kind: the prompt ends inside a thought, which a mark of this kind ends (see
            `data.thought_marks`); None outside.
        expected: a thought is asked for, and the response will open it.
    """

    open_kind: str | None = None
    expected: bool = False


NO_THOUGHT = ThoughtState()
"""The state of a prompt that neither opens a thought nor asks for one."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A problem encoded for a model, with chat template and tokenizer applied once."""

    problem: Problem
    ids: tuple[int, ...]
    thought: ThoughtState = NO_THOUGHT


@dataclass(frozen=True, kw_only=True)
class SoftEmbeddings:
    """A soft chain of thought: the distribution of its embeddings and access to their values.

    Each embedding was drawn from N(softmax(z / tau) E, sigma^2). `fed` returns the embeddings that
    were fed to the model, [T, D]; until it is called they stay in the memory of the process that
    sampled them.
    """

    tau: float
    sigma: float
    fed: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One response to one problem: sampled from a model, or a demonstration from a data set.

    Attributes:
        problem: the problem that is answered.
        id: unique in a run; rises with (step, position in the step).
        group: shared by the rollouts of one prompt in one step.
        prompt_ids: token ids of the prompt.
        response_ids: token ids of the response, the only input of training. The id of a soft token
            is the likeliest token at its position.
        text: the decoded response, for graders and readers only; after a separate chain of thought,
            the decoded answer.
        sampled_logp: the sampler's log-probability of each response token, in nats; empty for
            demonstrations and soft chains of thought.
        truncated: True if the response was cut at its length limit.
        unfinished: True if a chain of thought in `text` did not end, so that there is no answer.
        answer_start: index in `text` at which the answer begins, after a chain of thought.
        reward: the grade of the response; None if it has none, which leaves it out of training.
        correct: the verdict behind the reward; None if nothing has judged the response.
        reward_parts: other numbers that an own reward function returned, by name.
        reward_failure: the way in which an own reward function failed; None if it did not.
        evidence: evidence stored before the run: name -> one number per response token.
        kinds: `TokenKind` of each response token; empty if the policy chose all of them.
        loss_weight: factor of the loss of each response token; empty if all are 1.
        soft: embeddings of a soft chain of thought.
        concluded: False if the chain of thought was cut at its limit.
        episode: the conversation with an environment; None without one.
    """

    problem: Problem
    id: int
    group: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str = ""
    sampled_logp: tuple[float, ...] = ()
    truncated: bool = False
    unfinished: bool = False
    answer_start: int = 0
    reward: float | None = 0.0
    correct: bool | None = None
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    reward_failure: str | None = None
    evidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    kinds: tuple[int, ...] = ()
    loss_weight: tuple[float, ...] = ()
    soft: SoftEmbeddings | None = None
    concluded: bool = True
    episode: Episode | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """The facts of a conversation with an environment that its tokens do not show.

    Attributes:
        num_turns: turns of the policy.
        has_opening: `reset` gave an observation, which ends the rollout's prompt.
        num_observations: observations between turns, without that one.
        num_cut: how many of these were cut at `observation_tokens`.
        reward: the sum of the rewards of its turns; None if no turn had one.
        failure: the way in which a call of the environment failed; None if none did.
    """

    num_turns: int
    has_opening: bool = False
    num_observations: int = 0
    num_cut: int = 0
    reward: float | None = None
    failure: str | None = None


class TokenKind(IntEnum):
    """Origin of a token.

    Only response and soft tokens are trained on, and all statistics are over these tokens.
    """

    PAD = 0
    PROMPT = 1
    RESPONSE = 2
    FORCED = 3
    TOOL = 4
    SOFT = 5
    MASKED = 6  # chosen by the policy and left out of training, as a truncated rollout may be


class _EvidenceColumns:
    """Evidence by name, available as attributes: `batch.entropy_BT` is `batch.evidence["entropy"]`.

    Every name of the evidence table is an attribute whose suffix is the shape of the tensors.
    """

    evidence: Mapping[str, Tensor]
    _shape: ClassVar[str]

    def __getattr__(self, attribute: str) -> Tensor:
        # Python calls this only for names that are no field, property or method, so copying and
        # unpickling, which probe an instance before it has fields, must get an AttributeError.
        name, _, shape = attribute.rpartition("_")
        if shape != self._shape or name not in EVIDENCE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")
        if name not in self.evidence:
            observed = ", ".join(sorted(self.evidence)) or "none"
            raise LookupError(
                f"evidence {name!r} was not observed (observed: {observed}); a rule or an "
                f"objective that reads it must name it in `required_evidence`"
            )
        return self.evidence[name]


class TeacherPrompt(NamedTuple):
    """The prompt that a teacher sees in place of the student's.

    Attributes:
        ids: its token ids.
        replaced: number of ids of the student's prompt, which they replace.
    """

    ids: tuple[int, ...]
    replaced: int


@dataclass(frozen=True, kw_only=True)
class BatchTotals:
    """Totals of a whole optimiser step over all ranks; the only denominators of a loss.

    `sampled_*` are totals before the rollout filter. Fractional weights do not change a total: a
    token counts as kept if its weight is not zero. `max_response_tokens` is the limit of a
    response, `sample.max_tokens`, and 0 for written responses. See `algo.loss_aggregation`.
    """

    rollouts: int
    response_tokens: int
    sampled_rollouts: int
    sampled_tokens: int
    kept_rollouts: int
    kept_tokens: int
    pairs: int = 0
    max_response_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch(_EvidenceColumns):
    """The rollouts of one step of the run, right-padded to one width.

    A batch lives on the driver and holds one number per token or rollout: nothing is as wide as V
    or D. `progress` runs from 0 to 1 over the run, for schedules; `seed` is the run's seed and
    `step` the step's number, for random rules. `correct_B` are the verdicts, None if a rollout has
    none. `advantage_BT` are advantages of tokens, which replace those of their rollouts in the
    loss; None if all tokens of a rollout have its own. `penalty_BT` are factors of a penalty, for
    objectives that choose its tokens in the whole step (`objectives.kl_cov`). `loss_weight_BT`
    multiplies the weights of the selection (see `weighted`); None if it is 1 everywhere.
    `token_order_BT` orders tokens by (rollout, position) in every layout and serves to break ties.
    `soft` maps rollout ids to soft chains of thought, `images` to the encoded images of prompts,
    `teacher_prompts` to the prompts of a teacher that sees others than the student, and
    `teacher_index` to the teacher of each rollout if there are several.
    """

    _shape: ClassVar[str] = "BT"
    ids_BT: Int[Tensor, "B T"]
    kind_BT: Int[Tensor, "B T"]
    rollout_B: Int[Tensor, " B"]
    group_B: Int[Tensor, " B"]
    reward_B: Float[Tensor, " B"]
    advantage_B: Float[Tensor, " B"]
    correct_B: Bool[Tensor, " B"] | None = None
    advantage_BT: Float[Tensor, "B T"] | None = None
    penalty_BT: Float[Tensor, "B T"] | None = None
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    loss_weight_BT: Float[Tensor, "B T"] | None = None
    pair_B: Int[Tensor, " B"] | None = None
    sampled_rollouts: int = 0
    sampled_tokens: int = 0
    max_response_tokens: int = 0
    progress: float = 0.0
    seed: int = 0
    step: int = 0
    soft: Mapping[int, SoftEmbeddings] = field(default_factory=dict)
    images: Mapping[int, Image] = field(default_factory=dict)
    teacher_prompts: Mapping[int, TeacherPrompt] = field(default_factory=dict)
    teacher_index: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_response_BT(self) -> Bool[Tensor, "B T"]:
        """True at the tokens that the policy chose and that are trained on."""
        return (self.kind_BT == TokenKind.RESPONSE) | (self.kind_BT == TokenKind.SOFT)

    @property
    def length_B(self) -> Int[Tensor, " B"]:
        """Number of tokens of each rollout, without padding."""
        return (self.kind_BT != TokenKind.PAD).sum(1)

    @property
    def teacher_shift_B(self) -> Int[Tensor, " B"]:
        """Tokens by which the teacher's prompt of each rollout is longer than the student's."""
        shift_B = torch.zeros(len(self.rollout_B), dtype=torch.long)
        for index, rollout in enumerate(self.rollout_B.tolist()):
            if (prompt := self.teacher_prompts.get(rollout)) is not None:
                shift_B[index] = len(prompt.ids) - prompt.replaced
        return shift_B

    @property
    def teacher_length_B(self) -> Int[Tensor, " B"]:
        """Number of tokens of each rollout as the teacher reads it."""
        return self.length_B + self.teacher_shift_B

    @property
    def token_order_BT(self) -> Int[Tensor, "B T"]:
        """Sort key of each token: it rises with (rollout, position in the rollout)."""
        position_BT = (self.kind_BT != TokenKind.PAD).long().cumsum(1)
        return (self.rollout_B[:, None] << 24) + position_BT

    def weighted(self, weight_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The weights of a selection multiplied by the loss weights of the data."""
        return weight_BT if self.loss_weight_BT is None else weight_BT * self.loss_weight_BT

    def totals(self, weight_BT: Float[Tensor, "B T"] | None = None) -> BatchTotals:
        """Totals of the step.

        Kept tokens are those with a nonzero `weight_BT`; without it, all response tokens.
        """
        kept_BT = self.is_response_BT if weight_BT is None else weight_BT != 0
        return BatchTotals(
            rollouts=len(self.rollout_B),
            response_tokens=int(self.is_response_BT.sum()),
            sampled_rollouts=self.sampled_rollouts,
            sampled_tokens=self.sampled_tokens,
            kept_rollouts=int(kept_BT.any(1).sum()),
            kept_tokens=int(kept_BT.sum()),
            pairs=0 if self.pair_B is None else len(self.pair_B) // 2,
            max_response_tokens=self.max_response_tokens,
        )

    def with_evidence(self, columns: Mapping[str, Float[Tensor, "B T"]]) -> Batch:
        """The same batch with this evidence added."""
        unknown = columns.keys() - EVIDENCE.keys()
        assert not unknown, f"not a kind of evidence: {sorted(unknown)}"
        return replace(self, evidence={**self.evidence, **columns})

    def take(self, index_K: Int[Tensor, " K"]) -> Batch:
        """The batch with these rollouts only; its `sampled_*` totals do not change."""
        return replace(
            self,
            **{
                name: getattr(self, name)[index_K]
                for name in ("ids_BT", "kind_BT", "rollout_B", "group_B", "reward_B", "advantage_B")
            },
            evidence={name: column[index_K] for name, column in self.evidence.items()},
            advantage_BT=None if self.advantage_BT is None else self.advantage_BT[index_K],
            penalty_BT=None if self.penalty_BT is None else self.penalty_BT[index_K],
            loss_weight_BT=None if self.loss_weight_BT is None else self.loss_weight_BT[index_K],
            pair_B=None if self.pair_B is None else self.pair_B[index_K],
            correct_B=None if self.correct_B is None else self.correct_B[index_K],
        )


@dataclass(frozen=True, kw_only=True)
class TokenFields(_EvidenceColumns):
    """The fields of a batch that an objective reads, at N flattened tokens."""

    _shape: ClassVar[str] = "N"
    ids_N: Int[Tensor, " N"]
    advantage_N: Float[Tensor, " N"]
    penalty_N: Float[Tensor, " N"] | None = None
    evidence: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, rows: slice | Bool[Tensor, " N"] | Int[Tensor, " M"]) -> TokenFields:
        """The fields at a subset of the tokens."""
        return self._each(lambda column: column[rows])

    def to(self, device: torch.device) -> TokenFields:
        """The same fields, from the host, on another device; the host does not wait for it."""
        return self._each(lambda column: column.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TokenFields:
        return TokenFields(
            ids_N=change(self.ids_N),
            advantage_N=change(self.advantage_N),
            penalty_N=None if self.penalty_N is None else change(self.penalty_N),
            evidence={name: change(column) for name, column in self.evidence.items()},
        )


@dataclass(frozen=True)
class TokenStats:
    """Statistics of the policy's distribution at N tokens, each a float32 tensor [N].

    `vocab` provides `statistic` while the logits of a chunk are in memory. It computes each
    statistic on first use and caches it. All are differentiable with respect to the logits, in
    closed form.
    """

    statistic: Callable[[str], Float[Tensor, " N"]]

    @property
    def logp_N(self) -> Float[Tensor, " N"]:
        """log p(token)."""
        return self.statistic("logp")

    @property
    def entropy_N(self) -> Float[Tensor, " N"]:
        """Entropy of p in nats."""
        return self.statistic("entropy")

    @property
    def kl_reverse_N(self) -> Float[Tensor, " N"]:
        """KL(p || q), student to teacher, in nats."""
        return self.statistic("kl_reverse")

    @property
    def kl_forward_N(self) -> Float[Tensor, " N"]:
        """KL(q || p), teacher to student, in nats."""
        return self.statistic("kl_forward")

    def jsd_N(self, beta: float) -> Float[Tensor, " N"]:
        """Generalised Jensen-Shannon divergence beta KL(q || m) + (1 - beta) KL(p || m), in nats.

        m = (1 - beta) p + beta q (GKD, arXiv 2306.13649, in TRL's convention).
        """
        return self.statistic(f"jsd:{beta!r}")


@dataclass(frozen=True, kw_only=True)
class SequenceStats:
    """All N response tokens of K whole rollouts, for objectives of sums over a response.

    Attributes:
        logp_N: differentiable log-probabilities in nats.
        weight_N: weights of the selection rule.
        rollout_N: the rollout of each token, numbered from 0. Pair i is rollout 2i (chosen) and
            rollout 2i + 1 (rejected).
        token_N: position in the sequence, prompt included.
        num_rollouts: K, including rollouts without response tokens.
        columns: the batch's fields at the tokens.
    """

    logp_N: Float[Tensor, " N"]
    weight_N: Float[Tensor, " N"]
    rollout_N: Int[Tensor, " N"]
    token_N: Int[Tensor, " N"]
    num_rollouts: int
    columns: TokenFields

    def sums(self, value_N: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
        """Sum over each response; zero for a response without tokens."""
        return value_N.new_zeros(self.num_rollouts).index_add(0, self.rollout_N, value_N)

    def means(self, value_N: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
        """Mean over each response; zero for a response without tokens."""
        return self.sums(value_N) / self.sums(torch.ones_like(value_N)).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One loss per token or pair, as the objective's `granularity` states.

    `stats` are metrics of the same length.
    """

    loss: Float[Tensor, " N"]
    stats: Mapping[str, Tensor] = field(default_factory=dict)


Stats = dict[str, float]
"""Named metrics of one step, as written to metrics.jsonl."""


@dataclass(frozen=True)
class Weights:
    """The policy's weights for transfer to a sampler; `version` counts steps of the run."""

    version: int
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class SoftScoring:
    """Choices in the density of soft tokens and its gradient that the paper leaves open.

    Defaults are the paper's, or our reading of it. `reduction: mean` divides the log-density by D,
    which is a different estimator. `tau_grad` differentiates the mixture as if it had been formed
    at this temperature; the result is not the gradient of the density, and helps where the mixture
    is nearly one token (`fuzzy` thoughts). `detach_mixture_embedding` stops the gradient to the
    embeddings that the mixture is formed from.
    """

    reduction: Literal["sum", "mean"] = "sum"
    tau_grad: Positive | None = None
    detach_mixture_embedding: bool = False
