"""TIP (arXiv 2604.14084) in one file: plain PyTorch and transformers, no part of reasontrain.

On-policy distillation that trains on half of the student's own tokens: those at which the student
is unsure, or far from its teacher. Both tiny models ship in the repository, the problems are
generated, and a step takes a few seconds on one CPU core:

    python examples/tip_in_one_file.py

`tests/examples/test_tip_in_one_file.py` checks that `loss` gives the number, and the gradient norm,
of `reasontrain train recipes/tiny/tip.yaml` on the same batch. The package adds what a real run
needs: any vocabulary without the [B, T, V] logits, micro-batches, ranks, resume, evaluation.

Shapes end a tensor's name: B rollouts, T tokens, V vocabulary.
"""

from __future__ import annotations

import random
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
MODELS = REPOSITORY / "reasontrain/models/testbed_models"

STEPS = 5
ROLLOUTS_PER_STEP = 64
MAX_TOKENS = 120
LEARNING_RATE = 1e-3
MAX_GRAD_NORM = 1.0
KEEP_RATIO = 0.5
CLIP_QUANTILE = 0.98


def main() -> None:
    """Train for a few steps; print the loss, the kept share and the gradient norm of each."""
    torch.manual_seed(0)
    rng = random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student", padding_side="left")
    student = AutoModelForCausalLM.from_pretrained(MODELS / "student", dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(MODELS / "teacher", dtype=torch.float32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

    for step in range(STEPS):
        # 1. Rollouts of the student. They are data: no gradient flows through the sampling.
        problems = [make_problem(rng) for _ in range(ROLLOUTS_PER_STEP)]
        ids_BT, response_BT = sample(student, tokenizer, problems)

        # 2. Evidence about every token: the student's entropy, and its divergence from the teacher.
        with torch.no_grad():
            teacher_logp_BTV = token_distributions(teacher, ids_BT)
            entropy_BT, kl_BT = evidence(token_distributions(student, ids_BT), teacher_logp_BTV)

        # 3. A weight for every token: 1 for the half with the highest Soft-OR score, else 0.
        weight_BT = select(entropy_BT, kl_BT, response_BT, KEEP_RATIO)

        # 4. The loss of the selected tokens, and one optimiser step.
        objective = loss(student, teacher_logp_BTV, ids_BT, weight_BT)
        objective.backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        print(
            f"step {step}: loss {objective.item():.4f}, KL of all tokens "
            f"{kl_BT[response_BT].mean():.4f}, kept {weight_BT.sum() / response_BT.sum():.3f}, "
            f"gradient norm {norm:.3f}"
        )


def make_problem(rng: random.Random) -> str:
    """A sum or a product of two digits, plus a third digit."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    return f"What is ({a}{rng.choice('+*')}{b})+{c}?"


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


def token_distributions(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    """Log-probs [B, T, V] of what may stand at column t, given the tokens before it.

    Column 0 has no predecessor and holds zeros. Padding is on the right and attention is causal,
    so no mask is needed.
    """
    logits_BTV = model(ids_BT, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.pad(logits_BTV.log_softmax(-1), (0, 0, 1, 0))


def reverse_kl(student_logp_BTV: Tensor, teacher_logp_BTV: Tensor) -> Tensor:
    """KL(student || teacher) at every position, in nats, over the whole vocabulary (eq. 1)."""
    return (student_logp_BTV.exp() * (student_logp_BTV - teacher_logp_BTV)).sum(-1)


def evidence(student_logp_BTV: Tensor, teacher_logp_BTV: Tensor) -> tuple[Tensor, Tensor]:
    """The student's entropy and its divergence from the teacher, [B, T] each, in nats."""
    entropy_BT = -(student_logp_BTV.exp() * student_logp_BTV).sum(-1)
    return entropy_BT, reverse_kl(student_logp_BTV, teacher_logp_BTV)


def normalised(value_BT: Tensor, response_BT: Tensor, clip_quantile: float) -> Tensor:
    """Clip at a quantile of the step's response tokens, then min-max to [0, 1]."""
    value_N = value_BT[response_BT].double()
    low = value_N.min()
    high = value_N.quantile(clip_quantile)
    return ((value_BT.double() - low) / (high - low)).clamp(0, 1)


def soft_or(entropy_BT: Tensor, kl_BT: Tensor, response_BT: Tensor, clip_quantile: float) -> Tensor:
    """The score h + d - h d of response tokens; -inf elsewhere."""
    h_BT = normalised(entropy_BT, response_BT, clip_quantile)
    d_BT = normalised(kl_BT, response_BT, clip_quantile)
    return (h_BT + d_BT - h_BT * d_BT).masked_fill(~response_BT, -torch.inf)


def select(entropy_BT: Tensor, kl_BT: Tensor, response_BT: Tensor, keep_ratio: float) -> Tensor:
    """Weight 1 at the top floor(keep_ratio m) of the m response tokens of each rollout, else 0.

    The score is Soft-OR, h + d - h d: high where the student is unsure or far from its teacher
    (section 6). The paper clips the entropy only; as in the package, both are clipped here.
    """
    # Clipping gives many tokens the score 1; the score without it decides between them.
    then_BT = soft_or(entropy_BT, kl_BT, response_BT, clip_quantile=1.0)
    order_BT = then_BT.argsort(dim=1, descending=True, stable=True)
    score_BT = soft_or(entropy_BT, kl_BT, response_BT, CLIP_QUANTILE).gather(1, order_BT)
    best_BT = order_BT.gather(1, score_BT.argsort(dim=1, descending=True, stable=True))
    num_B = (keep_ratio * response_BT.sum(1)).long().clamp(min=1)
    kept_BT = torch.arange(best_BT.shape[1]) < num_B[:, None]
    weight_BT = torch.zeros_like(score_BT).scatter(1, best_BT, kept_BT.double())
    return weight_BT.float() * response_BT


def loss(
    student: PreTrainedModel, teacher_logp_BTV: Tensor, ids_BT: Tensor, weight_BT: Tensor
) -> Tensor:
    """The mean of the reverse KL over the kept tokens of a rollout, then over rollouts (eq. 9).

    The denominator counts kept tokens, not all: keeping half must not halve the step.
    """
    kl_BT = reverse_kl(token_distributions(student, ids_BT), teacher_logp_BTV)
    return ((weight_BT * kl_BT).sum(1) / weight_BT.sum(1)).mean()


if __name__ == "__main__":
    main()
