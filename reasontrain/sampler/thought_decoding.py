"""Rollouts with a chain of thought of hard or soft tokens, then forced text and an answer.

Soft Tokens (arXiv 2509.19170), section 3 and appendix C. A soft token is a mixture of embeddings.
The step whose token ends a thought is still part of it. An end-of-text id within a thought cuts it,
like the limit of steps; the paper does not specify this case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasontrain.data import thought_marks
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import HardThought, Thought
from reasontrain.models import Policy
from reasontrain.sampler.sequence import SequenceState, start_sequences
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.token_choice import choose, to_host
from reasontrain.sampler.token_decoding import RandomDraws
from reasontrain.types import Prompt, Rollout, SoftEmbeddings, TokenKind, UserError
from reasontrain.vocab import softmax_


@dataclass(frozen=True)
class ThoughtPlan:
    """The settings of a thought in token ids.

    Attributes:
        thought: the recipe's settings.
        sigma: standard deviation of the noise on a soft step's embedding; 0 for a hard thought.
        early: ids forced after a thought that concluded with its stop text.
        late: ids forced after a thought that was cut.
        conclusion: the stop text of a thought.
        stop_ids: ids that cut a thought, like its limit of steps.
        learned: rollouts keep the embeddings that were fed, for the learner.
    """

    thought: Thought
    sigma: float
    early: tuple[int, ...]
    late: tuple[int, ...]
    conclusion: StopCriteria
    stop_ids: frozenset[int]
    learned: bool

    @property
    def max_tokens_after(self) -> int:
        """The most tokens that follow a thought: forced text and answer."""
        return max(len(self.early), len(self.late)) + self.thought.max_answer_tokens


@dataclass
class ThoughtSequenceState(SequenceState):
    """A rollout in one of three phases: thinking, forced tokens, answer.

    Attributes:
        plan: the settings of the thought.
        thought_steps_left: the number of thought steps left.
        kinds: the `TokenKind` of each token of the response.
        fed: the embedding that was fed after each soft step, [D] each.
        forced: forced ids that are not in the response yet.
        thinking: the thought has not ended.
        concluded: the thought ended with its stop text.
    """

    plan: ThoughtPlan = field(kw_only=True)
    thought_steps_left: int = field(kw_only=True)
    kinds: list[int] = field(default_factory=list)
    fed: list[Tensor] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    thinking: bool = True
    concluded: bool = False

    def append(self, token: int, logp: float, stop_criteria: StopCriteria) -> None:
        """Append the token, or a forced one in its place; a sequence that is done ignores it."""
        if self.done:
            return
        self.check_finite(logp, len(self.response))
        if self.thinking:
            is_hard = isinstance(self.plan.thought, HardThought)
            self._append(token, logp, TokenKind.RESPONSE if is_hard else TokenKind.SOFT)
            self._update_thought()
        elif self.forced:
            self._append(self.forced.pop(0), 0.0, TokenKind.FORCED)
        else:
            self._append(token, logp, TokenKind.RESPONSE)
            self.stopped = stop_criteria(self.response[self.kinds.index(TokenKind.FORCED) :])

    def _append(self, token: int, logp: float, kind: TokenKind) -> None:
        self.response.append(token)
        self.logp.append(logp)
        self.kinds.append(int(kind))
        self.budget -= 1

    def _update_thought(self) -> None:
        """End the thought at its stop text, at an end-of-text id, or at its limit of steps."""
        self.thought_steps_left -= 1
        is_cut = self.response[-1] in self.plan.stop_ids
        self.concluded = not is_cut and self.plan.conclusion(self.response)
        if self.concluded or is_cut or self.thought_steps_left == 0:
            self.thinking = False
            self.forced = list(self.plan.early if self.concluded else self.plan.late)
            self.budget = len(self.forced) + self.plan.thought.max_answer_tokens

    def rollout(self, tokenizer: PreTrainedTokenizerBase) -> Rollout:
        """The finished rollout.

        Its text begins after the thought, so that only the answer is graded.
        """
        answer_ids = self.response[self.kinds.index(TokenKind.FORCED) :]
        answer = thought_marks.decode(tokenizer, answer_ids)
        # the forced text ends the thought of the prompt or of the response
        reading = thought_marks.marks_of(tokenizer).read(answer, truncated=not self.stopped)
        rollout = replace(
            super().rollout(tokenizer),
            text=answer,
            unfinished=reading.unfinished,
            answer_start=reading.start,
            kinds=tuple(self.kinds),
            concluded=self.concluded,
        )
        thought = self.plan.thought
        if isinstance(thought, HardThought):
            return rollout
        fed_TD = torch.stack(self.fed).cpu() if self.fed else torch.zeros(0, 0)
        soft = (
            SoftEmbeddings(tau=thought.tau, sigma=self.plan.sigma, fed=partial(_local, fed_TD))
            if self.plan.learned
            else None
        )
        # the log-prob of a soft step's most likely token is not the log-prob of the step
        return replace(rollout, sampled_logp=(), soft=soft)


def _thinks(sequence: SequenceState) -> bool:
    """True if the thought of a sequence has not ended."""
    return isinstance(sequence, ThoughtSequenceState) and sequence.thinking


def _local(fed_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    """Return embeddings that are in this process; `cluster` replaces them by stored objects."""
    return fed_TD


class ThoughtDecoding:
    """Decode with a thought: soft steps feed embeddings, all other steps feed their token."""

    multi_step_sampling: ClassVar[None] = None

    def __init__(self, policy: Policy, sampling: Sampling, stop_criteria: StopCriteria) -> None:
        """Draw answers with `sampling`, and thoughts at the temperature of `sampling.thought`."""
        assert sampling.thought is not None, "TokenDecoding decodes without a thought"
        thought = sampling.thought
        self.policy = policy
        self.sampling = sampling
        self.stop_criteria = stop_criteria
        self.thought = thought
        self.basis = policy.basis
        encode = partial(policy.tokenizer, add_special_tokens=False)
        self.plan = ThoughtPlan(
            thought=thought,
            sigma=0.0
            if isinstance(thought, HardThought)
            else thought.gamma * policy.input_space.rms,
            early=tuple(encode(thought.early)["input_ids"]),
            late=tuple(encode(thought.late)["input_ids"]),
            conclusion=StopCriteria(frozenset(), (thought.stop_text,), policy.tokenizer),
            stop_ids=stop_criteria.ids,
            learned=sampling.learned,
        )

    def start(
        self, prompts: Sequence[Prompt], *, num: int, first_id: int
    ) -> list[ThoughtSequenceState]:
        """See `DecodeStrategy`; raise UserError if a prompt leaves no room for a thought."""
        sequences = start_sequences(
            prompts,
            num=num,
            first_id=first_id,
            max_tokens=self.sampling.max_tokens,
            context=self.policy.context,
        )
        return [self._with_thought(sequence) for sequence in sequences]

    def _with_thought(self, sequence: SequenceState) -> ThoughtSequenceState:
        after = self.plan.max_tokens_after
        steps = min(self.thought.max_tokens, sequence.budget - after)
        if steps < 1:
            raise UserError(
                f"the prompt of {sequence.prompt.problem.label} has "
                f"{len(sequence.prompt.ids)} tokens and leaves {sequence.budget} for the response, "
                f"but the forced text and the answer take up to {after} of them "
                f"(`thought.late` and `thought.max_answer_tokens`), and a thought at least one; "
                "raise `max_tokens`, or drop long prompts"
            )
        return ThoughtSequenceState(
            sequence.prompt,
            sequence.id,
            sequence.group,
            steps + after,
            plan=self.plan,
            thought_steps_left=steps,
        )

    def __call__(
        self,
        sequences: Sequence[SequenceState],
        logits_NV: Float[Tensor, "N V"],
        draws: RandomDraws,
    ) -> Tensor:
        """See `DecodeStrategy`."""
        # Indices come from the host, which knows them: `nonzero` would wait for the device.
        thinking = [i for i, sequence in enumerate(sequences) if _thinks(sequence)]
        answering = [i for i, sequence in enumerate(sequences) if not _thinks(sequence)]
        device = logits_NV.device
        thinking_M = torch.tensor(thinking, dtype=torch.long).to(device, non_blocking=True)
        answering_K = torch.tensor(answering, dtype=torch.long).to(device, non_blocking=True)
        self.basis.mask_non_tokens_(logits_NV)
        ids_N = torch.zeros_like(draws.id_N)
        logp_N = logits_NV.new_zeros(len(sequences))
        if len(answering_K):
            ids_N[answering_K], logp_N[answering_K] = choose(
                logits_NV[answering_K], draws.uniform_N[answering_K], self.sampling
            )
        ids_N[thinking_M], logp_N[thinking_M], fed_MD = self._think(
            logits_NV[thinking_M], draws, thinking_M
        )
        ids, logps = to_host(ids_N[:, None], logp_N[:, None])
        for sequence, (token,), (logp,) in zip(sequences, ids, logps, strict=True):
            sequence.append(token, logp, self.stop_criteria)
        # not ids_N: a forced token may have replaced the drawn one
        next_ids_N1 = torch.tensor([[sequence.response[-1]] for sequence in sequences]).to(
            device, non_blocking=True
        )
        if fed_MD is None:
            return next_ids_N1
        if self.plan.learned:
            for index, embedding_D in zip(thinking, fed_MD, strict=True):
                sequence = sequences[index]
                assert isinstance(sequence, ThoughtSequenceState)
                sequence.fed.append(embedding_D)
        embeds_N1D = self.policy.embed(next_ids_N1)
        embeds_N1D[thinking_M, 0] = fed_MD.to(embeds_N1D.dtype)
        return embeds_N1D

    def _think(
        self, logits_MV: Float[Tensor, "M V"], draws: RandomDraws, row_M: Int[Tensor, " M"]
    ) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, "M D"] | None]:
        """One step of thought: token ids, their log-probs, and the embeddings to feed.

        A soft step has no token; its most likely token represents it in the response. Embeddings
        are None for a hard thought, which feeds its tokens.
        """
        if isinstance(self.thought, HardThought):
            sampling = Sampling(temperature=self.thought.tau)
            return *choose(logits_MV, draws.uniform_N[row_M], sampling), None
        most_likely_M = logits_MV.argmax(-1)
        p_MV = softmax_(logits_MV, self.thought.tau)
        logp_M = p_MV.gather(1, most_likely_M[:, None])[:, 0].log()
        mean_MD = self.basis.mix(p_MV)
        noise_MD = draws.normal(row_M, mean_MD.shape[1]).to(mean_MD.dtype)
        return most_likely_M, logp_M, (mean_MD + self.plan.sigma * noise_MD).to(self.policy.dtype)
