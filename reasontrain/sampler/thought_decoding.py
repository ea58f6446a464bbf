"""Rollouts that think before they answer, in tokens or in mixtures of embeddings, and are brought
to an answer by force.

Soft Tokens (arXiv 2509.19170), section 3 and appendix C. The step whose token ends a thought is
still part of it. An end-of-text id within a thought ends it as its limit does: the paper is silent
there.
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

from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import HardThought, Thought
from reasontrain.models import Policy
from reasontrain.sampler.sequence import DecodingSequence, StopCriteria, begin
from reasontrain.sampler.token_choice import choose
from reasontrain.sampler.token_decoding import RandomDraws
from reasontrain.types import Prompt, Rollout, SoftEmbeddings, TokenKind, UserError
from reasontrain.vocab import softmax_


@dataclass(frozen=True)
class ThoughtPlan:
    """A thought's rules in token ids; `sigma` is the noise of a soft one."""

    thought: Thought
    sigma: float
    early: tuple[int, ...]
    late: tuple[int, ...]
    conclusion: StopCriteria
    stop_ids: frozenset[int]
    learned: bool

    @property
    def after(self) -> int:
        """The most tokens that follow a thought."""
        return max(len(self.early), len(self.late)) + self.thought.max_answer_tokens


@dataclass
class ThoughtSequence(DecodingSequence):
    """A rollout in one of three phases: it thinks, is forced, answers.

    `left` counts the steps that it may still think.
    """

    plan: ThoughtPlan = field(kw_only=True)
    left: int = field(kw_only=True)
    kinds: list[int] = field(default_factory=list)
    fed: list[Tensor] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    thinking: bool = True
    concluded: bool = False

    def take(self, token: int, logp: float, stop_criteria: StopCriteria) -> None:
        """Append a token, or what is forced in its place; a row that is done stays as it is."""
        if self.done:
            return
        self.check(logp, len(self.response))
        if self.thinking:
            self._append(
                token,
                logp,
                TokenKind.RESPONSE
                if isinstance(self.plan.thought, HardThought)
                else TokenKind.SOFT,
            )
            self._conclude()
        elif self.forced:
            self._append(self.forced.pop(0), 0.0, TokenKind.FORCED)
        else:
            self._append(token, logp, TokenKind.RESPONSE)
            self.ended = stop_criteria(self.response[self.kinds.index(TokenKind.FORCED) :])

    def _append(self, token: int, logp: float, kind: TokenKind) -> None:
        self.response.append(token)
        self.logp.append(logp)
        self.kinds.append(int(kind))
        self.budget -= 1

    def _conclude(self) -> None:
        """End the thought where it has said so, where the text ends, or where it has been thought
        long enough.
        """
        self.left -= 1
        cut = self.response[-1] in self.plan.stop_ids
        self.concluded = not cut and self.plan.conclusion(self.response)
        if self.concluded or cut or self.left == 0:
            self.thinking = False
            self.forced = list(self.plan.early if self.concluded else self.plan.late)
            self.budget = len(self.forced) + self.plan.thought.max_answer_tokens

    def rollout(self, tokenizer: PreTrainedTokenizerBase) -> Rollout:
        """The finished rollout; its text begins after the thought, so that only the answer is
        graded.
        """
        said = tokenizer.decode(
            self.response[self.kinds.index(TokenKind.FORCED) :], skip_special_tokens=True
        )
        assert isinstance(said, str)
        rollout = replace(
            super().rollout(tokenizer), text=said, kinds=tuple(self.kinds), concluded=self.concluded
        )
        thought = self.plan.thought
        if isinstance(thought, HardThought):
            return rollout
        kept = torch.stack(self.fed).cpu() if self.fed else torch.zeros(0, 0)
        soft = (
            SoftEmbeddings(tau=thought.tau, sigma=self.plan.sigma, fed=partial(_here, kept))
            if self.plan.learned
            else None
        )
        return replace(rollout, sampled_logp=(), soft=soft)


def _here(kept: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    """A handle to what lies in this process."""
    return kept


class ThoughtDecoding:
    """A step of rows that think: a soft one feeds embeddings, all other tokens are fed as they are."""

    law: ClassVar[None] = None

    def __init__(self, policy: Policy, sampling: Sampling, stop_criteria: StopCriteria) -> None:
        """The law of the answer is `sampling`'s, and that of the thought its `thought`'s."""
        assert sampling.thought is not None, "who does not think speaks"
        self.policy, self.sampling, self.stop_criteria, self.thought = (
            policy,
            sampling,
            stop_criteria,
            sampling.thought,
        )
        self.basis = policy.basis
        encode = partial(policy.tokenizer, add_special_tokens=False)
        thought = sampling.thought
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

    def begin(self, prompts: Sequence[Prompt], *, num: int, first_id: int) -> list[ThoughtSequence]:
        """See `DecodeStrategy`; raises UserError for a prompt that leaves no room for a thought and
        an answer.
        """
        limits = {"max_tokens": self.sampling.max_tokens, "context": self.policy.context}
        rows = begin(prompts, num=num, first_id=first_id, **limits)
        return [self._thinking(row) for row in rows]

    def _thinking(self, row: DecodingSequence) -> ThoughtSequence:
        left = min(self.thought.max_tokens, row.budget - self.plan.after)
        if left < 1:
            raise UserError(
                f"the prompt of problem {row.prompt.problem.id} has {len(row.prompt.ids)} "
                f"tokens, and leaves {row.budget} for a "
                f"response: what follows a thought takes up to {self.plan.after} of them "
                f"(`thought.late` and "
                "`thought.max_answer_tokens`), and there must be one left to think; raise "
                "`max_tokens`, or drop long prompts"
            )
        return ThoughtSequence(
            row.prompt, row.id, row.group, left + self.plan.after, plan=self.plan, left=left
        )

    def __call__(
        self, rows: Sequence[DecodingSequence], logits_NV: Float[Tensor, "N V"], draws: RandomDraws
    ) -> Tensor:
        """See `DecodeStrategy`."""
        thinks_N = torch.tensor(
            [isinstance(row, ThoughtSequence) and row.thinking for row in rows],
            device=logits_NV.device,
        )
        thinking_M, speaking_K = thinks_N.nonzero()[:, 0], (~thinks_N).nonzero()[:, 0]
        self.basis.mask_non_tokens_(logits_NV)
        ids_N, logp_N = torch.zeros_like(draws.id_N), logits_NV.new_zeros(len(rows))
        if len(speaking_K):
            ids_N[speaking_K], logp_N[speaking_K] = choose(
                logits_NV[speaking_K], draws.uniform_N[speaking_K], self.sampling
            )
        ids_N[thinking_M], logp_N[thinking_M], fed_MD = self._think(
            logits_NV[thinking_M], draws, thinking_M
        )
        for row, token, value in zip(rows, ids_N.tolist(), logp_N.tolist(), strict=True):
            row.take(token, value, self.stop_criteria)
        next_N1 = torch.tensor([[row.response[-1]] for row in rows], device=logits_NV.device)
        if fed_MD is None:
            return next_N1
        if self.plan.learned:
            for index, embedding_D in zip(thinking_M.tolist(), fed_MD, strict=True):
                row = rows[index]
                assert isinstance(row, ThoughtSequence)
                row.fed.append(embedding_D)
        embeds_N1D = self.policy.embed(next_N1)
        embeds_N1D[thinking_M, 0] = fed_MD.to(embeds_N1D.dtype)
        return embeds_N1D

    def _think(
        self, logits_MV: Float[Tensor, "M V"], draws: RandomDraws, row_M: Int[Tensor, " M"]
    ) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, "M D"] | None]:
        """A step of thought: its tokens or shadows, their log-probs, and what is fed where that is
        no token.
        """
        if isinstance(self.thought, HardThought):
            law = Sampling(temperature=self.thought.tau)
            return *choose(logits_MV, draws.uniform_N[row_M], law), None
        shadow_M = logits_MV.argmax(-1)
        p_MV = softmax_(logits_MV, self.thought.tau)
        logp_M = p_MV.gather(1, shadow_M[:, None])[:, 0].log()
        mean_MD = self.basis.mix(p_MV)
        noise_MD = draws.normal(row_M, mean_MD.shape[1]).to(mean_MD.dtype)
        return shadow_M, logp_M, (mean_MD + self.plan.sigma * noise_MD).to(self.policy.dtype)
