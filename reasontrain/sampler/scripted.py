"""A sampler that returns prepared responses: for tests of everything after sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights

Decode = Callable[[Sequence[int]], str]


class ScriptedSampler:
    """Return the responses prepared for each problem id in turn, starting over at the end.

    A response longer than `max_tokens` is cut and counts as truncated. Every token gets the
    log-prob `logp`.
    """

    def __init__(
        self,
        responses: Mapping[str, Sequence[tuple[int, ...]]],
        *,
        decode: Decode,
        logp: float = 0.0,
        version: int = 0,
    ) -> None:
        self.responses = responses
        self.decode = decode
        self.logp = logp
        self.version = version
        self.used = dict.fromkeys(responses, 0)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Return the next `num` scripted responses to every prompt (see `Sampler`).

        Args:
            prompts: prompts of problems that have scripted responses.
            sampling: only `max_tokens` is used.
            num: rollouts per prompt.
            first_id: the id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt.
        """
        return [
            self._rollout(prompt, sampling, first_id + i * num + g, first_id + i * num)
            for i, prompt in enumerate(prompts)
            for g in range(num)
        ]

    def load(self, weights: Weights) -> None:
        """Record the version; the responses stay the same."""
        self.version = weights.version

    def _rollout(self, prompt: Prompt, sampling: Sampling, rollout: int, group: int) -> Rollout:
        """One scripted response."""
        problem = prompt.problem
        assert self.responses.get(problem.id), f"the script has no response to problem {problem.id}"
        script = self.responses[problem.id]
        response = script[self.used[problem.id] % len(script)]
        self.used[problem.id] += 1
        kept = response[: sampling.max_tokens]
        return Rollout(
            problem=problem,
            id=rollout,
            group=group,
            prompt_ids=prompt.ids,
            response_ids=kept,
            text=self.decode(kept),
            sampled_logp=(self.logp,) * len(kept),
            truncated=len(response) > len(kept),
        )
