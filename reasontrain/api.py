"""The Python interface: load a recipe, train it, evaluate a model.

`reasontrain.load_recipe`, `reasontrain.train` and `reasontrain.evaluate` are these functions. They
do what the commands `train` and `evaluate` do and write the same files. Progress is printed;
messages go to the logger `reasontrain`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from reasontrain.models import DType
from reasontrain.recipe import Recipe, as_mapping, folder_of, read_recipe, recipe_of


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: a YAML file.
        overrides: settings that replace the file's, each as `key.path=value` with a YAML value.

    Returns:
        The recipe, frozen, with every default.

    Raises:
        RecipeError: the recipe is invalid; the message lists every error.
        UserError: the file cannot be read.
    """
    return read_recipe(Path(path), overrides)


def train(recipe: str | Path | Recipe, overrides: Sequence[str] = ()) -> Path:
    """Run a recipe to its last step, resuming an interrupted run of the same name.

    Args:
        recipe: a YAML file, or a recipe that `load_recipe` returned.
        overrides: settings that replace the recipe's, each as `key.path=value`.

    Returns:
        The run directory, `<out>/<name>`, with metrics, checkpoints, the model in `final/` and
        `report.html`.

    Raises:
        RecipeError: the recipe is invalid; the message lists every error.
        UserError: a file or a model that the recipe names cannot be used.
        RunError: the run cannot continue; the message says what was saved.
    """
    from reasontrain.cli.train import train_recipe

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        recipe = recipe_of(as_mapping(recipe), overrides, recipe.name, folder=folder_of(recipe))
    return train_recipe(recipe)


def evaluate(
    model: str | Path,
    suites: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    data: str | Path | None = None,
    prompt: str | None = None,
    out: str | Path = "out/evaluations",
    limit: int | None = None,
    dtype: DType | None = None,
    seed: int = 0,
    engine: str | None = None,
    engine_settings: Mapping[str, int | float] | None = None,
    base: str | None = None,
    workers: int | None = None,
    endpoint: str | None = None,
    concurrency: int | None = None,
    tokenizer: str | None = None,
    restart: bool = False,
) -> dict[str, object]:
    """Score a model on suites; an interrupted evaluation is resumed.

    Args:
        model: a model directory, a LoRA adapter, a hub id or `testbed:NAME`; with `endpoint`, the
            model's name at the server.
        suites: names in `eval/suites`, or YAML or JSONL files.
        overrides: settings that replace the suites', each as `key.path=value`.
        data: a folder with the suites' files (default: `$REASONTRAIN_DATA`, else the hub).
        prompt: `base`, `instruct`, `thinking` or a YAML file (default: the suites' own).
        out: the folder that reports are written to.
        limit: number of problems of each suite, from its first.
        dtype: computation dtype of the weights (default: bfloat16).
        seed: seed of sampling.
        engine: the sampler engine, e.g. local or vllm (default: local).
        engine_settings: keys of a recipe's `sample.engine`, e.g. `{"max_num_seqs": 64}`.
        base: base model of an adapter (default: the one that the adapter names).
        workers: number of Ray processes that generate (default: this process).
        endpoint: URL of a server with OpenAI's API.
        concurrency: concurrent requests to the endpoint (default: 16).
        tokenizer: with `endpoint`, a model whose tokenizer the server has: token ids are exchanged
            instead of texts.
        restart: discard existing answers.

    Returns:
        The content of `<out>/<model>/report.json`: model, seed, versions, and one entry of `suites`
        per suite with metrics and 95 % intervals.

    Raises:
        UserError: a suite, a model or a combination of arguments is not valid.
        RunError: the evaluation cannot continue; its answers are kept.
    """
    from reasontrain.cli.evaluate import EvaluateOptions
    from reasontrain.cli.evaluate import evaluate as evaluate_models

    (report,) = evaluate_models(
        EvaluateOptions(
            models=[str(model)],
            suites=suites,
            overrides=overrides,
            data=None if data is None else Path(data),
            prompt=prompt,
            out=Path(out),
            limit=limit,
            dtype=dtype,
            seed=seed,
            engine=engine,
            engine_settings=engine_settings or {},
            base=base,
            workers=workers,
            endpoint=endpoint,
            concurrency=concurrency,
            tokenizer=tokenizer,
            restart=restart,
        )
    )
    content: dict[str, object] = json.loads(report.read_text(encoding="utf-8"))
    return content
