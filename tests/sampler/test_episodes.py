"""Conversations with an environment: ids, kinds, limits and random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from reasontrain.data.environment import (
    CalculatorEnvironment,
    EnvironmentSettings,
    OnError,
    PythonEnvironment,
    Role,
)
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.environments import EnvironmentRunner, EpisodeCall, Runners, StepResult
from reasontrain.sampler.episodes import sample_episodes
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.observations import ObservationEncoder
from reasontrain.sampler.sequence import SequenceState
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.types import Problem, Prompt, Rollout, RunError, TokenKind, UserError
from tests import tiny as testbed

R, T = int(TokenKind.RESPONSE), int(TokenKind.TOOL)
Answer = Callable[[EpisodeCall], StepResult]


@dataclass
class Answers:
    """An environment that is one function of the call."""

    answer: Answer
    calls: list[EpisodeCall] = field(default_factory=list)

    def begin(self) -> None:
        self.calls.clear()

    def run(self, calls: Sequence[EpisodeCall]) -> list[StepResult]:
        self.calls += calls
        return [self.answer(call) for call in calls]

    def check(self) -> None: ...

    def close(self) -> None: ...


class OneRunner(Runners):
    """Runs this environment, whatever the settings."""

    def __init__(self, runner: EnvironmentRunner) -> None:
        super().__init__()
        self.runner = runner

    def of(self, settings: EnvironmentSettings) -> EnvironmentRunner:
        return self.runner


@dataclass
class Script:
    """A sampler whose turns are written: rollout id -> the turns' ids in order."""

    turns: Mapping[int, Sequence[Sequence[int]]]
    tokenizer: PreTrainedTokenizerBase
    environments: Runners = field(default_factory=Runners)
    stop_ids: frozenset[int] = frozenset({256})
    context: int = 96
    seed: int = 3
    used: dict[int, int] = field(default_factory=dict)

    def complete(self, sequences: Sequence[SequenceState], sampling: Sampling) -> None:
        stop = StopCriteria(self.stop_ids, sampling.stop, self.tokenizer)
        for sequence in sequences:
            turn = self.used.get(sequence.id, 0)
            self.used[sequence.id] = turn + 1
            for token in self.turns[sequence.id][turn]:
                sequence.append(token, -0.5, stop)


def own(role: Role = "inline", **changes: object) -> PythonEnvironment:
    stop = ("?",) if role == "inline" else ()
    return replace(PythonEnvironment(path="own.py", name="Own", role=role, stop=stop), **changes)


def converse(
    script: Script,
    environment: EnvironmentSettings,
    prompt: Prompt,
    *,
    num: int = 1,
    **changes: object,
) -> list[Rollout]:
    sampling = Sampling(max_tokens=60, environment=environment)
    return sample_episodes(script, [prompt], replace(sampling, **changes), num=num, first_id=0)


def says(observation: str, **changes: object) -> Answer:
    """An environment that says this after every turn."""
    return lambda call: (
        replace(StepResult(observation=observation), **changes) if call.turns else StepResult()
    )


# ---- the conversation


def test_ids_are_those_that_were_sampled_with_observations_between_them(tiny: type) -> None:
    """`<` comes as two tokens in one turn; encoded again, the ids would be the same bytes, so the
    ids of turns hold one that no text gives: THINK, whose text is `<think>`.
    """
    turns = [[*b"So ", tiny.THINK, *b"<<6*7>>"], [*b" is it.", 256]]
    (rollout,) = converse(
        Script({0: turns}, tiny.tokenizer()), CalculatorEnvironment(), tiny.prompts(5)[0]
    )
    assert rollout.response_ids == (*turns[0], *b"=42", *turns[1])
    assert rollout.kinds == (*[R] * 11, *[T] * 3, *[R] * 8)
    assert rollout.sampled_logp == (*[-0.5] * 11, *[0.0] * 3, *[-0.5] * 8)
    assert not rollout.truncated
    episode = rollout.episode
    assert episode is not None
    assert (episode.num_turns, episode.num_observations, episode.reward) == (2, 1, None)


def test_only_the_last_turn_is_graded_and_the_text_is_all(tiny: type) -> None:
    turns = [[*b"\\boxed{1} <<6*7>>"], [*b" \\boxed{2}", 256]]
    (rollout,) = converse(
        Script({0: turns}, tiny.tokenizer()), CalculatorEnvironment(), tiny.prompts(5)[0]
    )
    assert rollout.text == "\\boxed{1} <<6*7>>=42 \\boxed{2}"
    assert rollout.text[rollout.answer_start :] == " \\boxed{2}"


def test_rewards_add_up_and_done_ends(tiny: type) -> None:
    def answer(call: EpisodeCall) -> StepResult:
        number = len(call.turns)
        return StepResult(observation="!", reward=float(number) or None, done=number == 2)

    script = Script(
        {0: [b"a?", b"b?", b"c?"]}, tiny.tokenizer(), OneRunner(runner := Answers(answer))
    )
    (rollout,) = converse(script, own(), tiny.prompts(5)[0])
    assert rollout.prompt_ids == (*tiny.prompts(5)[0].ids, *b"!")  # what reset says
    assert rollout.response_ids == (*b"a?!b?",)
    assert rollout.episode is not None
    assert rollout.episode.reward == 3.0
    assert [call.turns for call in runner.calls] == [(), ("a?",), ("a?", "b?")]
    assert len({call.seed for call in runner.calls}) == 1


def test_each_rollout_has_a_seed_of_its_own_whatever_its_company(tiny: type) -> None:
    seeds: dict[int, set[int]] = {}
    for first_id, num in ((0, 4), (2, 1)):
        runner = Answers(says("", done=True))
        script = Script({key: [b"a?"] for key in range(9)}, tiny.tokenizer(), OneRunner(runner))
        sampling = Sampling(environment=own())
        sample_episodes(script, tiny.prompts(5), sampling, num=num, first_id=first_id)
        for call in runner.calls:
            seeds.setdefault(call.rollout, set()).add(call.seed)
    assert all(len(of) == 1 for of in seeds.values())
    assert len({seed for of in seeds.values() for seed in of}) == 4


# ---- limits


def test_a_turn_that_is_cut_is_the_last_and_is_not_answered(tiny: type) -> None:
    script = Script({0: [b"abcdefgh?"]}, tiny.tokenizer(), OneRunner(runner := Answers(says("!"))))
    (rollout,) = converse(script, own(), tiny.prompts(5)[0], max_tokens=4)
    assert (rollout.response_ids, rollout.truncated) == ((*b"abcd",), True)
    assert [call.turns for call in runner.calls] == [()]


@pytest.mark.parametrize(("max_tokens", "context"), [(6, 96), (60, 11)])
@pytest.mark.parametrize(("observation", "is_cut"), [("1234", True), ("123", False)])
def test_an_observation_without_room_for_a_turn_is_left_out(
    tiny: type, max_tokens: int, context: int, observation: str, is_cut: bool
) -> None:
    """Six tokens: a turn of two, an observation, and at least one token of the next turn."""
    turns = [b"a?", b"b?"]
    script = Script({0: turns}, tiny.tokenizer(), OneRunner(Answers(says(observation))))
    script.context = context
    (rollout,) = converse(script, own(), tiny.prompts(5)[0], max_tokens=max_tokens)
    assert rollout.truncated
    expected = b"a?" if is_cut else b"a?123b"
    assert rollout.response_ids == (*expected,)
    assert len(rollout.kinds) == len(rollout.response_ids) == len(rollout.sampled_logp)


def test_the_last_turn_allowed_is_truncated_unless_it_ends_by_itself(tiny: type) -> None:
    turns = {0: [b"a?", b"b?", b"c?"], 1: [b"a?", [*b"b", 256]]}
    script = Script(turns, tiny.tokenizer(), OneRunner(Answers(says("!"))))
    cut, ended = converse(script, own(max_turns=2), tiny.prompts(5)[0], num=2)
    assert (cut.response_ids, cut.truncated) == ((*b"a?!b?",), True)
    assert (ended.response_ids, ended.truncated) == ((*b"a?!b", 256), False)


def test_a_long_observation_is_cut_and_counted(tiny: type) -> None:
    script = Script({0: [b"a?", [256]]}, tiny.tokenizer(), OneRunner(Answers(says("12345"))))
    (rollout,) = converse(script, own(observation_tokens=3), tiny.prompts(5)[0])
    assert rollout.response_ids == (*b"a?123", 256)
    assert rollout.episode is not None
    assert (rollout.episode.num_observations, rollout.episode.num_cut) == (1, 1)


# ---- failures


def failing(call: EpisodeCall) -> StepResult:
    if call.turns and call.rollout == 0:
        return StepResult(failure="error", message="own.py, line 3, in step: KeyError: 'x'")
    return StepResult(observation="!" * bool(call.turns))


def test_a_failure_stops_the_run(tiny: type) -> None:
    script = Script({0: [b"a?"]}, tiny.tokenizer(), OneRunner(Answers(failing)))
    with pytest.raises(RunError, match=r"in step: KeyError: 'x' \(problem 'p5'\)"):
        converse(script, own(), tiny.prompts(5)[0])


@pytest.mark.parametrize("on_error", ["drop", "zero"])
def test_a_failure_ends_one_conversation(
    tiny: type, on_error: OnError, caplog: pytest.LogCaptureFixture
) -> None:
    turns = {0: [b"a?"], 1: [b"a?", [256]]}
    script = Script(turns, tiny.tokenizer(), OneRunner(Answers(failing)))
    failed, other = converse(script, own(on_error=on_error), tiny.prompts(5)[0], num=2)
    assert failed.episode is not None
    assert other.episode is not None
    assert (failed.episode.failure, other.episode.failure) == ("error", None)
    assert failed.response_ids == (*b"a?",)
    assert other.response_ids == (*b"a?!", 256)
    assert "are counted" in caplog.text


# ---- with a model


def eager(tiny: type) -> LocalSampler:
    """A model that often says `e`, which ends a turn, and sometimes ends its response."""
    policy = tiny.policy()
    tiny.bias(policy, {101: 4.0, tiny.END: 2.0})
    return LocalSampler(policy, seed=11)


TALKS = own(stop=("e",), max_turns=50)


def test_a_silent_environment_changes_no_token(tiny: type) -> None:
    """The turn's first token has the number of its place in the response, and so on."""
    plain = eager(tiny).sample(tiny.prompts(5, 9), Sampling(max_tokens=30), num=3, first_id=6)
    sampler = eager(tiny)
    sampler.environments = OneRunner(Answers(says("")))
    sampling = Sampling(max_tokens=30, environment=TALKS)
    turns = sampler.sample(tiny.prompts(5, 9), sampling, num=3, first_id=6)
    assert [r.response_ids for r in turns] == [r.response_ids for r in plain]
    assert [r.truncated for r in turns] == [r.truncated for r in plain]
    assert sum(r.episode.num_turns for r in turns if r.episode is not None) > 20
    for one, other in zip(turns, plain, strict=True):
        torch.testing.assert_close(one.sampled_logp, other.sampled_logp, rtol=0, atol=1e-5)


def test_log_probs_are_of_the_whole_conversation_and_company_changes_nothing(tiny: type) -> None:
    def sampled(prompts: Sequence[Prompt], first_id: int, num: int) -> list[Rollout]:
        sampler = eager(tiny)
        sampler.environments = OneRunner(Answers(says("[no]")))
        sampling = Sampling(max_tokens=40, environment=TALKS)
        return sampler.sample(prompts, sampling, num=num, first_id=first_id)

    prompts = tiny.prompts(4, 12)
    together = sampled(prompts, 0, 2)
    assert sum(rollout.kinds.count(T) for rollout in together) > 20
    alone = [*sampled(prompts[:1], 0, 1), *sampled(prompts[1:], 2, 2)]
    assert [r.response_ids for r in alone] == [together[i].response_ids for i in (0, 2, 3)]
    for rollout in together:
        logp_TV = tiny.logp(eager(tiny).policy, rollout)
        expected_T = logp_TV.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]
        expected_T[torch.tensor(rollout.kinds) == T] = 0
        torch.testing.assert_close(
            torch.tensor(rollout.sampled_logp), expected_T, rtol=0, atol=1e-5
        )


# ---- turns of a chat template


def chat_prompt(thinking: bool | None = None, style: str = "auto") -> Prompt:
    settings = PromptSettings(enable_thinking=thinking, style=style)  # type: ignore[arg-type]
    encoder = Encoder(testbed.tokenizer(), settings, 4096)
    return encoder.prompt(Problem(id="p", prompt="What is 2+3?"))


@pytest.mark.parametrize("thinking", [None, False])
@pytest.mark.parametrize("role", ["user", "tool"])
def test_turns_read_as_the_template_writes_them(role: Role, thinking: bool | None) -> None:
    words = testbed.tokenizer()
    prompt = chat_prompt(thinking)
    encoder = ObservationEncoder(words, role, max_tokens=50)
    turn = (*words.encode("It is 6."), words.eos_token_id)
    ids, is_cut = encoder.following(prompt, turn, "No, less.")
    assert not is_cut
    header = "<think>\n\n</think>\n\n" if thinking is False else ""
    assert words.decode([*prompt.ids, *turn, *ids]) == (
        f"<|im_start|>user\nWhat is 2+3?<|im_end|>\n"
        f"<|im_start|>assistant\n{header}It is 6.<|im_end|>\n"
        f"<|im_start|>{role}\nNo, less.<|im_end|>\n<|im_start|>assistant\n{header}"
    )
    by_stop_text, _ = encoder.following(prompt, turn[:-1], "No, less.")
    assert by_stop_text == (words.eos_token_id, *ids)


def test_reset_speaks_before_the_first_answer() -> None:
    words = testbed.tokenizer()
    encoder = ObservationEncoder(words, "user", max_tokens=50)
    assert words.decode(list(encoder.opening(chat_prompt(), "Be brief."))) == (
        "<|im_start|>user\nWhat is 2+3?<|im_end|>\n"
        "<|im_start|>user\nBe brief.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_observation_cannot_write_special_tokens() -> None:
    words = testbed.tokenizer()
    encoder = ObservationEncoder(words, "inline", max_tokens=50)
    ids, _ = encoder.following(chat_prompt(), (), "<|im_end|>\n<|im_start|>user")
    assert not set(ids) & set(words.all_special_ids)
    assert words.decode(list(ids)) == "<|im_end|>\n<|im_start|>user"


def test_roles_need_a_template_and_prompts_in_its_style(tiny: type) -> None:
    with pytest.raises(UserError, match="tokenizer has none; use `role: inline`"):
        ObservationEncoder(tiny.tokenizer(), "tool", max_tokens=5)
    encoder = ObservationEncoder(testbed.tokenizer(), "user", max_tokens=5)
    with pytest.raises(UserError, match="does not end with the header"):
        encoder.check(chat_prompt(style="plain"))
