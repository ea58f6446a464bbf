"""The tiny testbed: a byte-level tokenizer and Qwen3 models of under a million parameters.

`build` writes an untrained model directory; the recipes `recipes/tiny/testbed_*.yaml` train it into
the models that ship in `reasontrain/models/testbed_models/`. Building is deterministic: the same
arguments give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from reasontrain.run.directory import Estimate, RunDirectory
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import AtLeastOne, UserError

MODELS = Path(__file__).parent / "testbed_models"
"""Directory of the trained models: `teacher`, `student`, `noisy`."""

WEIGHTS = "model.safetensors"
MADE = "made.json"
VOCABULARY_SIZE = 512

_PIECE = Regex(r" ?\\?\p{L}+|\p{N}|\n+|\s+(?=\s)|\s|[^\s\p{L}\p{N}]")
"""Pre-tokens of the byte-level BPE.

A word or LaTeX command with the space before it, one digit, line breaks, other white space, or one
sign.
"""

_OTHER_TEXT = """system user assistant
You are a helpful assistant. Please reason step by step, and put your final answer within \\boxed{}.
Solve the following problem. If each of them has this much, what is the sum, the total, the value \
for all in dollars or hours?
Let the number be such that it can be written as a function with which we have one real solution. \
Prove your result.
"""
"""Words of other prompts, to fill the vocabulary."""

CHAT_TEMPLATE = """\
{%- set last = namespace(query=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}\
{% set last.query = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and loop.index0 < last.query \
and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}\
{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""
"""Turns in the format of Qwen3.

Thoughts before the last question are left out; with `enable_thinking` false an empty thought is
written.
"""


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """The size of a tiny Qwen3; `seed` draws its first weights."""

    hidden_size: AtLeastOne
    intermediate_size: AtLeastOne
    num_layers: AtLeastOne
    num_heads: AtLeastOne
    num_key_value_heads: AtLeastOne
    head_dim: AtLeastOne = 32
    context: AtLeastOne = 4096
    seed: int = 0


SHAPES = {
    "teacher": TinyShape(
        hidden_size=128, intermediate_size=384, num_layers=4, num_heads=4, num_key_value_heads=2
    ),
    "student": TinyShape(
        hidden_size=96, intermediate_size=256, num_layers=3, num_heads=3, num_key_value_heads=1
    ),
    "noisy": TinyShape(
        hidden_size=96, intermediate_size=256, num_layers=3, num_heads=3, num_key_value_heads=1
    ),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the arithmetic problems.

    Any text round-trips, every digit is one token, and there is no unknown token.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECE, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    problems = Arithmetic(num_problems=2000).problems()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 5,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(
        [
            f"{p.prompt}\n{p.solution.replace('<think>', '').replace('</think>', '')}"
            for p in problems
        ]
        + [_OTHER_TEXT],
        trainer,
    )
    bpe.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    bpe.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def build(path: Path, shape: TinyShape) -> None:
    """Write an untrained float32 model, its tokenizer and generation settings to a directory."""
    words = tokenizer()
    assert len(words) == VOCABULARY_SIZE, f"the tokenizer has {len(words)} entries"
    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[words.eos_token_id, words.pad_token_id],
        pad_token_id=words.pad_token_id,
        do_sample=True,
        temperature=1.0,
    )
    write(model, path)
    words.save_pretrained(path)


def write(model: PreTrainedModel, path: Path) -> None:
    """Write configuration and weights in the format of `save_pretrained`, on any rank.

    `save_pretrained` itself writes on rank 0 only, but each rank builds its own copy.
    """
    path.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    save_file(state, path / WEIGHTS, metadata={"format": "pt"})


def ship(run: Path) -> Path:
    """Copy the model of a finished run of `recipes/tiny/testbed_<name>.yaml` into the package.

    Its recipe, environment and accuracy are written beside it. Raises UserError if the run is not
    finished or not one of the testbed's.
    """
    name = run.name.removeprefix("testbed-")
    directory = RunDirectory(run)
    if name not in SHAPES or not directory.final.is_dir():
        raise UserError(
            f"{run} is not a finished run of recipes/tiny/testbed_{{{','.join(SHAPES)}}}.yaml"
        )
    target = MODELS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(directory.final, target)
    last: dict[str, Estimate] = {}
    for record in directory.read_evaluations():
        last[record["suite"]] = record["metrics"]["accuracy"]
    weights = hashlib.sha256((target / WEIGHTS).read_bytes()).hexdigest()
    provenance: dict[str, object] = {
        "recipe": f"recipes/tiny/testbed_{name}.yaml",
        "sha256": weights,
        "accuracy": last,
    }
    provenance |= directory.read_environment()
    (target / MADE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(ship(Path(argument)))
