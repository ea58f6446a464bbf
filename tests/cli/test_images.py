"""Captions of images learned end to end, with the image as PRIOR's condition, by a tiny
Qwen2.5-VL and a tiny LLaVA.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from reasontrain.cli import main
from reasontrain.models.testbed_vision import BUILDERS
from reasontrain.stages import unconditional
from reasontrain.tasks.images import ImageTask
from reasontrain.types import Rollout

RECIPE = """
name: run
steps: 4
model: {path: model}
task: {kind: images, num_problems: 24}
unconditional: {kind: uncond_tuned, lr: 1.0e-2, rollouts_per_step: 8}
token_selection: {kind: prior}
objective: {kind: nll}
loss_aggregation: response_token_mean
learn: {lr: 1.0e-2, rollouts_per_step: 8, schedule: constant, micro_batch_tokens: 300}
"""

SUITE = """
name: held-out
task: {kind: images, split: test, num_problems: 5}
sampling: {temperature: 0.0, max_tokens: 6}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    Path("suite.yaml").write_text(SUITE)


def run(*overrides: str) -> int:
    return main(["train", "recipe.yaml", *overrides])


def losses(name: str = "run") -> list[float]:
    return [
        json.loads(line)["loss"]
        for line in Path(f"out/{name}/metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("name", BUILDERS)
def test_an_image_model_learns_goes_on_and_is_an_ordinary_one_afterwards(name: str) -> None:
    BUILDERS[name](Path("model"))
    assert run() == 0
    assert losses()[-1] < 0.9 * losses()[0]
    model = AutoModelForImageTextToText.from_pretrained("out/run/final")
    trained, start = (
        model.state_dict(),
        AutoModelForImageTextToText.from_pretrained("model").state_dict(),
    )
    eyes = [key for key in start if "vision" in key or "visual" in key]
    assert any(not torch.equal(trained[key], start[key]) for key in eyes)
    assert trained.keys() == start.keys()
    assert model.config.model_type in ("qwen2_5_vl", "llava")
    assert AutoImageProcessor.from_pretrained("out/run/final") is not None
    assert main(["evaluate", "out/run/final", "--suite", "suite.yaml", "--out", "eval"]) == 0
    (asked,) = json.loads(next(Path("eval").rglob("report.json")).read_text())["suites"]
    assert asked["num_problems"] == 5
    assert run("steps=6") == 0
    assert run("name=straight", "steps=6") == 0
    assert losses() == losses("straight")


def test_the_reference_sees_the_prompt_without_the_image_or_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BUILDERS["qwen2.5-vl"](Path("model"))
    seen: list[Rollout] = []
    inner = unconditional.cut_parts

    def watched(rollouts: list[Rollout], folds: int) -> list[unconditional.FoldPart]:
        seen[:] = rollouts
        return inner(rollouts, folds)

    monkeypatch.setattr(unconditional, "cut_parts", watched)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("model")
    shown = {}
    for condition in ("null", "image", "prompt"):
        assert run("steps=1", f"name=r-{condition}", f"unconditional.condition={condition}") == 0
        assert all(r.problem.image is None for r in seen)
        shown[condition] = {tokenizer.decode(list(r.prompt_ids)) for r in seen}
    without_image = {
        "<|im_start|>user\nWhat does the picture show?<|im_end|>\n<|im_start|>assistant\n"
    }
    assert shown == {
        "null": without_image,
        "image": without_image,
        "prompt": {"<|im_start|>assistant\n"},
    }


def test_another_image_leaves_a_samples_weights_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BUILDERS["qwen2.5-vl"](Path("model"))
    assert run("steps=1") == 0
    from reasontrain.tasks import images

    white = images.draw_shapes([("white", "square"), ("white", "square")])
    monkeypatch.setattr(images, "draw_shapes", lambda shapes: white)
    assert run("steps=1", "name=other") == 0
    assert (
        len(list(Path("out/stages").glob("uncond_logp-*"))) == 1
    )  # the same column, which was not computed again
    ours, theirs = (
        json.loads(Path(f"out/{name}/tokens/step-1.jsonl").read_text().splitlines()[0])
        for name in ("run", "other")
    )
    assert ours["weight"] == theirs["weight"]
    assert losses() != losses("other")


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no image": (("task.kind=arithmetic",), "0 has no image, and the model is an image model"),
    "attention": (
        ("token_selection.kind=sstoken",),
        "token_selection: the evidence `attention` is not implemented for image models; use a "
        "rule that does not need it",
    ),
    "packing": (
        ("learn.layout=packed",),
        "learn.layout: sequences with images cannot be packed; use `padded`",
    ),
    "broken image": (
        ("task={kind: rollouts, path: broken.json}",),
        "problem 0 is in no format that",
    ),
    "no file": (
        ("task={kind: rollouts, path: gone.json}",),
        "gone.json, row 1: there is no image",
    ),
    "text model": (
        ("model.path=untrained:student",),
        "train-0 has an image, and the model reads text only",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_image_model_cannot_do_is_one_sentence(
    capsys: pytest.CaptureFixture[str], case: str
) -> None:
    BUILDERS["qwen2.5-vl"](Path("model"))
    overrides, message = REFUSED[case]
    Path("broken.png").write_bytes(b"no image")
    for name in ("broken", "gone"):
        Path(f"{name}.json").write_text(
            json.dumps([{"prompt": "What?", "response": "A dog.", "image": f"{name}.png"}])
        )
    assert run(*overrides) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("out").exists()


def test_captions_are_learned_from_a_file_of_llavas_and_images_beside_it() -> None:
    BUILDERS["llava"](Path("model"))
    rows = []
    for index, problem in enumerate(ImageTask(num_problems=16).problems()):
        Path("images").mkdir(exist_ok=True)
        Path(f"images/{index}.png").write_bytes(problem.image.content)
        turns = [
            {"from": "human", "value": "What is this?\n<image>"},
            {"from": "gpt", "value": problem.solution},
        ]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    Path("captions.json").write_text(json.dumps(rows))
    assert run("task={kind: rollouts, path: captions.json, images: images}") == 0
    assert losses()[-1] < 0.9 * losses()[0]
    told = json.loads(Path("out/run/tokens/step-1.jsonl").read_text().splitlines()[0])["prompt"]
    assert "What is this?\n<image><image>" in told
