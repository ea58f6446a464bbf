"""`reasontrain show RECIPE --data N`: the tokens of the first rows, and what is learned of them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from reasontrain import models
from reasontrain.data.prompts import Encoder
from reasontrain.data.rendering import TemplateFailedError
from reasontrain.data.replies import check_prompts
from reasontrain.data.templates import PROBE, Conversation
from reasontrain.recipe import Recipe
from reasontrain.run.datasets import first_rows
from reasontrain.types import Rollout, TokenKind

TRAINED = (TokenKind.RESPONSE, TokenKind.SOFT)
INDENT = 40


def show_data(recipe: Recipe, num: int) -> None:
    """Print the tokens of the first rows, and check that inference sends the same prompts.

    Args:
        recipe: the recipe.
        num: number of rows.

    Raises:
        UserError: a row cannot be read or encoded.
        RunError: the ids before a learned turn are not those that inference sends.
    """
    encoder, rows = first_rows(recipe, models.describe(recipe.model), num)
    num_prompts = 0
    for row in rows:
        for side, rollout in enumerate(row):
            name = f", {('chosen', 'rejected')[side]}" if len(row) > 1 else ""
            print("\n".join(lines(encoder, rollout, name)))
        rollouts = row if row[0].response_ids else ()
        has_ids = any(rollout.prompt_ids != encoder.prompt_ids(rollout.problem) for rollout in row)
        if has_ids and recipe.task.kind in ("rollouts", "pairs"):
            print("  the prompt ids of the file differ from those that the text has now\n")
            continue
        num_prompts += sum(check_prompts(encoder, rollout) for rollout in rollouts)
        num_prompts += not rollouts
    print(f"inference sends these ids before every learned turn ({num_prompts} compared)")


def lines(encoder: Encoder, rollout: Rollout, name: str = "") -> Iterator[str]:
    """The report of one rollout: a title, and a line for each run of tokens that are alike.

    Args:
        encoder: the encoder of the recipe's model.
        rollout: the rollout.
        name: added to the title.
    """
    ids = (*rollout.prompt_ids, *rollout.response_ids)
    kinds = (TokenKind.PROMPT,) * len(rollout.prompt_ids) + (
        tuple(map(TokenKind, rollout.kinds)) or (TokenKind.RESPONSE,) * len(rollout.response_ids)
    )
    weights = (1.0,) * len(rollout.prompt_ids) + (
        rollout.loss_weight or (1.0,) * len(rollout.response_ids)
    )
    num_trained = sum(kind in TRAINED for kind in kinds)
    yield (
        f"{rollout.problem.where}{name}: {len(rollout.prompt_ids)} prompt tokens, "
        + (
            f"{len(rollout.response_ids)} response tokens, {num_trained} trained"
            if rollout.response_ids
            else "the response is sampled"
        )
    )
    yield f"  {'tokens':>11}  {'role':10} {'trained':7} {'weight':6}"
    roles = roles_of(encoder, rollout)
    width = max(shutil.get_terminal_size().columns - INDENT, 40)
    for (role, is_trained, weight), run in groupby(
        range(len(ids)), lambda i: (roles[i], kinds[i] in TRAINED, weights[i])
    ):
        places = list(run)
        pieces = [shown(str(encoder.tokenizer.decode([ids[i]]))) for i in places]
        span = f"{places[0]}-{places[-1]}" if len(places) > 1 else str(places[0])
        trained = "yes" if is_trained else "no"
        shown_weight = f"{weight:g}" if is_trained else "-"
        first = f"  {span:>11}  {role:10.10} {trained:7} {shown_weight:6} "
        wrapped = textwrap.wrap(
            " ".join(pieces), width, break_long_words=False, break_on_hyphens=False
        )
        yield first.ljust(INDENT) + wrapped[0]
        yield from (" " * INDENT + rest for rest in wrapped[1:])
    yield ""


def shown(piece: str) -> str:
    """A token in one visible word: spaces as dots, line breaks as `\\n`."""
    return piece.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "·") or "∅"


def roles_of(encoder: Encoder, rollout: Rollout) -> list[str]:
    """The role of the turn that each token belongs to; a turn's header belongs to the turn.

    Found by rendering the conversation turn by turn; the generation prompt is the assistant's.
    """
    ids = (*rollout.prompt_ids, *rollout.response_ids)
    if not encoder.chat or encoder.vision is not None:
        return ["prompt"] * len(rollout.prompt_ids) + ["response"] * len(rollout.response_ids)
    conversation = encoder.conversation(rollout.problem, rollout.problem.reply)
    roles: list[str] = []
    for number, turn in enumerate(conversation.turns):
        try:
            text = encoder.template.render(
                conversation.upto(number + 1), add_generation_prompt=False
            )
        except TemplateFailedError:
            continue
        (text_ids,) = encoder.encode([text])
        end = common_prefix(ids, text_ids)
        if end < len(text_ids) and number + 1 < len(conversation.turns):
            (text_ids,) = encoder.encode([_as_history(encoder, conversation, number)])
            end = common_prefix(ids, text_ids)
        roles += [str(turn["role"])] * (end - len(roles))
    inside = rollout.kinds or (TokenKind.RESPONSE,) * len(rollout.response_ids)
    kinds = (TokenKind.RESPONSE,) * len(rollout.prompt_ids) + inside  # the generation prompt's too
    between = {TokenKind.TOOL: "tool", TokenKind.PROMPT: "user"}
    return roles + [between.get(TokenKind(kind), "assistant") for kind in kinds[len(roles) :]]


def _as_history(encoder: Encoder, conversation: Conversation, number: int) -> str:
    """The text up to the end of a turn that the template writes in another way when it is last."""
    following = conversation.turns[number + 1]
    longer = conversation.upto(number + 2).with_turn(
        number + 1, {"role": following["role"], "content": PROBE}
    )
    text = encoder.template.render(longer, add_generation_prompt=False).partition(PROBE)[0]
    ends = (text.rfind(end) + len(end) for end in encoder.template.answer_ends if end in text)
    return text[: max(ends, default=0)]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of items that two sequences begin with alike."""
    pairs = zip(first, second, strict=False)
    shortest = min(len(first), len(second))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), shortest)
