"""GRPO (arXiv 2402.03300) in one file: plain PyTorch and transformers, no part of reasontrain.

A tiny model that adds numbers is rewarded for right answers alone. The model ships in the
repository, the problems are generated, and a step takes a few seconds on one CPU core:

    python examples/grpo_in_one_file.py

`tests/examples/test_grpo_in_one_file.py` checks that `advantages` and `loss` give the numbers of
`reasontrain train recipes/tiny/grpo.yaml` on the same batch. The package adds what a real run
needs: any vocabulary without the [B, T, V] logits, micro-batches, ranks, resume, evaluation.

Shapes end a tensor's name: B rollouts, T tokens, G rollouts of a problem, V vocabulary.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "reasontrain/models/testbed_models/noisy"

STEPS = 5
PROBLEMS_PER_STEP = 16
GROUP_SIZE = 8  # rollouts of each problem
MAX_TOKENS = 120
LEARNING_RATE = 3e-4
MAX_GRAD_NORM = 1.0
CLIP_LOW = 0.2
CLIP_HIGH = 0.2
EPS = 1e-4


def main() -> None:
    """Train for a few steps; print the mean reward, the loss and the gradient norm of each."""
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

    for step in range(STEPS):
        # 1. Rollouts: every problem is answered GROUP_SIZE times.
        problems = [make_problem(rng) for _ in range(PROBLEMS_PER_STEP)]
        problems = [problem for problem in problems for _ in range(GROUP_SIZE)]
        ids_BT, response_BT = sample(model, tokenizer, [prompt for prompt, _ in problems])

        # 2. Rewards, and from those of a group the advantage of each rollout.
        reward_B = torch.tensor(
            [
                reward(tokenizer.decode(ids_T[mask_T]), answer)
                for ids_T, mask_T, (_, answer) in zip(ids_BT, response_BT, problems, strict=True)
            ]
        )
        advantage_B = advantages(reward_B, GROUP_SIZE)

        # 3. The policy's log-probs before the update. With one update per batch the ratio below
        #    starts at 1 and the clip never acts; it does with more updates on the same rollouts.
        with torch.no_grad():
            old_logp_BT = token_logps(model, ids_BT)

        # 4. One optimiser step.
        objective = loss(model, ids_BT, response_BT, advantage_B, old_logp_BT)
        objective.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        print(
            f"step {step}: reward {reward_B.mean():.3f}, loss {objective.item():+.4f}, "
            f"gradient norm {norm:.3f}"
        )


def make_problem(rng: random.Random) -> tuple[str, str]:
    """A sum or a product of two digits, plus a third digit, and the answer."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    op = rng.choice("+*")
    inner = a + b if op == "+" else a * b
    return f"What is ({a}{op}{b})+{c}?", str(inner + c)


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: list[str]
) -> tuple[Tensor, Tensor]:
    """One rollout per problem at temperature 1.

    Args:
        model: The policy.
        tokenizer: Its tokenizer, which pads on the left.
        problems: B questions as plain text.

    Returns:
        Token ids [B, T] of prompt and response, padded on the right, and a mask [B, T] that is
        True at response tokens, the end-of-text token included.
    """
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": problem}], add_generation_prompt=True, tokenize=False
        )
        for problem in problems
    ]
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    out_BT = model.generate(
        **encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_TOKENS
    )
    sequences: list[tuple[list[int], int]] = []
    width = encoded["input_ids"].shape[1]
    for out_T, attended_T in zip(out_BT.tolist(), encoded["attention_mask"], strict=True):
        prompt = out_T[width - int(attended_T.sum()) : width]
        response = out_T[width:]
        if tokenizer.eos_token_id in response:
            response = response[: response.index(tokenizer.eos_token_id) + 1]
        sequences.append((prompt + response, len(prompt)))

    longest = max(len(ids) for ids, _ in sequences)
    ids_BT = torch.full((len(sequences), longest), tokenizer.pad_token_id)
    response_BT = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for index, (ids, num_prompt) in enumerate(sequences):
        ids_BT[index, : len(ids)] = torch.tensor(ids)
        response_BT[index, num_prompt : len(ids)] = True
    return ids_BT, response_BT


def reward(response: str, answer: str) -> float:
    r"""1 where the last \boxed{...} of the response holds the answer, else 0."""
    boxed = re.findall(r"\\boxed\{(.*?)\}", response)
    return float(bool(boxed) and boxed[-1] == answer)


def advantages(reward_B: Tensor, group_size: int) -> Tensor:
    """(r - mean) / (std + eps) within each group of adjacent rollouts; 0 where all rewards agree.

    The standard deviation divides by G - 1 (section 4.1.2 of the paper).
    """
    reward_NG = reward_B.double().view(-1, group_size)
    centred_NG = reward_NG - reward_NG.mean(1, keepdim=True)
    std_N1 = reward_NG.std(1, keepdim=True)
    advantage_NG = torch.where(std_N1 < EPS, 0.0, centred_NG / (std_N1 + EPS))
    return advantage_NG.view(-1).float()


def token_logps(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    """log p(token t | tokens before t) at column t; column 0 has no predecessor and holds 0.

    Padding is on the right and attention is causal, so no mask is needed.
    """
    logits_BTV = model(ids_BT, use_cache=False).logits[:, :-1].float()
    logp_BT = logits_BTV.log_softmax(-1).gather(2, ids_BT[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(logp_BT, (1, 0))


def loss(
    model: PreTrainedModel,
    ids_BT: Tensor,
    response_BT: Tensor,
    advantage_B: Tensor,
    old_logp_BT: Tensor,
) -> Tensor:
    """The mean over all response tokens of -min(r A, clip(r) A) with r = p / p_old (eq. 3).

    Args:
        model: The policy, differentiated.
        ids_BT: Token ids [B, T], padded on the right.
        response_BT: True at response tokens.
        advantage_B: One advantage per rollout.
        old_logp_BT: Log-probs (nats) before the update, at temperature 1.

    Returns:
        A scalar. The mean is over the tokens of the whole step (`loss_aggregation: token_mean`);
        the paper takes it over each response first (`seq_mean_token_mean`).
    """
    ratio_BT = torch.exp(token_logps(model, ids_BT) - old_logp_BT)
    clipped_BT = ratio_BT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    gain_BT = torch.minimum(advantage_B[:, None] * ratio_BT, advantage_B[:, None] * clipped_BT)
    return -gain_BT[response_BT].mean()


if __name__ == "__main__":
    main()
