"""`show --data` prints what is learned of the first rows, and compares it with inference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain.cli import main
from reasontrain.data.replies import check_prompts, encode_demonstrations
from reasontrain.types import RunError
from tests.chat_templates import TEMPLATES, encoder, two_turns, with_tools

ROOT = Path(__file__).resolve().parents[2]
SFT = str(ROOT / "recipes/tiny/sft.yaml")


def test_every_token_with_its_role_and_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    turns = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>a</think>4"},
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "content": "6", "loss_weight": 0.5},
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns[2:]}))
    task = f"task={{kind: rollouts, path: {path}}}"
    assert main(["show", SFT, task, "--data", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The template leaves the earlier thought out, so that the second reply is a row of its own.
    assert lines[0] == f"{path}, line 1: problem 0: 15 prompt tokens, 5 response tokens, 5 trained"
    assert [line.split() for line in lines[2:5]] == [
        [
            "0-9",
            "user",
            "no",
            "-",
            *["<|im_start|>", "us", "er", "\\n", "2", "+", "2", "?", "<|im_end|>", "\\n"],
        ],
        ["10-14", "assistant", "no", "-", *["<|im_start|>", "as", "sis", "tant", "\\n"]],
        ["15-19", "assistant", "yes", "1", *["<think>", "a", "</think>", "4", "<|im_end|>"]],
    ]
    second = lines.index(next(line for line in lines if "#turn4" in line))
    assert [line.split()[1:4] for line in lines[second + 2 : second + 7]] == [
        ["user", "no", "-"],
        ["assistant", "no", "-"],
        ["user", "no", "-"],
        ["assistant", "no", "-"],
        ["assistant", "yes", "0.5"],
    ]
    assert lines[-1] == "inference sends these ids before every learned turn (2 compared)"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((str(ROOT / "recipes/tiny/grpo.yaml"),), "the response is sampled"),
        ((SFT, "prompt.style=plain"), "response   yes     1"),
    ],
)
def test_problems_and_plain_texts_are_shown_too(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    assert main(["show", *arguments, "--data", "1"]) == 0
    assert expected in capsys.readouterr().out
    assert main(["show", *arguments, "--data", "0"]) == 2


@pytest.mark.parametrize("name", ["Qwen3", "Qwen2.5", "gpt-oss", "GLM"])
def test_ids_that_inference_does_not_send_are_named(name: str) -> None:
    own = encoder(TEMPLATES[name])
    for problem in (two_turns(TEMPLATES[name]), with_tools()):
        rollouts, _ = encode_demonstrations(own, [problem])
        assert sum(check_prompts(own, rollout) for rollout in rollouts) == 2
    changed = (*rollouts[0].prompt_ids[:-1], 7)
    with pytest.raises(RunError, match="the ids before a learned turn differ from what inference"):
        check_prompts(own, replace(rollouts[0], prompt_ids=changed))


@pytest.mark.parametrize("kind", ["math", "gsm8k"])
@pytest.mark.parametrize("command", ["show", "train"])
def test_pairs_read_as_problems_name_their_kind(
    command: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "2+2?", "chosen": "4", "rejected": "5"}\n')
    arguments = [f"task={{kind: {kind}, path: {path}}}", f"out={tmp_path}", "evaluate=null"]
    options = ["--data", "1"] if command == "show" else []
    assert main([command, SFT, *arguments, *options]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            f"{path} holds preference pairs (columns 'chosen' and 'rejected'); read them with "
            f"`task.kind: pairs`"
        )
    )
