"""Names and parameters of what we use of vLLM, read from its source without importing it, and of
what we use, from ours.

`python -m tests.sampler.signatures FOLDER_OF_vllm VERSION` writes vllm_signatures.json anew.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("vllm_signatures.json")
OURS = Path(__file__).parents[2] / "reasontrain" / "sampler"
LLM = "entrypoints/llm.py"
METHODS = {
    "generate": LLM,
    "sleep": LLM,
    "wake_up": LLM,
    "reset_prefix_cache": LLM,
    "init_weight_transfer_engine": LLM,
    "start_weight_update": LLM,
    "update_weights": LLM,
    "finish_weight_update": LLM,
}
IPC = "distributed/weight_transfer/ipc_engine.py"
CLASSES = {
    "SamplingParams": "sampling_params.py",
    "EngineArgs": "engine/arg_utils.py",
    "CompletionOutput": "outputs.py",
    "FlatLogprobs": "logprobs.py",
    "TokensPrompt": "inputs/llm.py",
    "IPCWeightTransferInitInfo": IPC,
    "IPCWeightTransferUpdateInfo": IPC,
}
"""Fields are those annotated in the body of the class."""
TEXTS = {
    "config/model.py": ["processed_logprobs"],
    "distributed/weight_transfer/factory.py": ["ipc"],
    "v1/engine/__init__.py": ["stop", "length"],
    "entrypoints/llm.py": ["init_info", "update_info"],
    "v1/worker/gpu_worker.py": ["weights"],
    "config/parallel.py": ["mp"],
    "envs.py": [
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_NO_USAGE_STATS",
    ],
}
"""Words that we say to vLLM and that its source must know."""


def source() -> Path | None:
    """The folder of vLLM's source: what REASONTRAIN_VLLM_SOURCE names, or the package where it is
    installed.
    """
    if named := os.environ.get("REASONTRAIN_VLLM_SOURCE"):
        return Path(named)
    found = importlib.util.find_spec("vllm")
    return Path(found.origin).parent if found and found.origin else None


def read(vllm: Path) -> dict[str, object]:
    """What vLLM's source says."""
    return {
        "methods": {
            name: parameters(_find(vllm / path, f"LLM.{name}")) for name, path in METHODS.items()
        },
        "LLM": parameters(_find(vllm / LLM, "LLM.__init__")),
        "RequestOutput": parameters(_find(vllm / "outputs.py", "RequestOutput.__init__")),
        "classes": {name: fields(_find(vllm / path, name)) for name, path in CLASSES.items()},
        "texts": {
            path: [text for text in texts if text in _texts(vllm / path)]
            for path, texts in TEXTS.items()
        },
    }


def parameters(function: ast.stmt) -> list[str]:
    """Names: "*" before those that are given by name alone, "=" behind those with a default, "**"
    where any other is taken.
    """
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    first_default = len(plain) - len(given.defaults)
    names = [a.arg + "=" * (i >= first_default) for i, a in enumerate(plain)][1:]
    named = [
        a.arg + "=" * (d is not None)
        for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [*names, *(["*", *named] if named else []), *(["**"] if given.kwarg else [])]


def fields(cls: ast.stmt) -> list[str]:
    """Names that the class annotates."""
    assert isinstance(cls, ast.ClassDef)
    return [
        n.target.id
        for n in cls.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]


def calls() -> Iterator[tuple[str, int, list[str]]]:
    """What our code calls: `engine.METHOD`, or LLM, or SamplingParams; how many arguments by place,
    and which by name.
    """
    for path in sorted(OURS.glob("vllm*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, name = ast.unparse(node.func.value).rpartition(".")[2], node.func.attr
                if owner == "engine":
                    yield name, len(node.args), [str(k.arg) for k in node.keywords]
                elif owner == "library" and name in ("engine", "params"):
                    called = {"engine": "LLM", "params": "SamplingParams"}[name]
                    yield called, len(node.args), [str(k.arg) for k in node.keywords]


def _find(path: Path, dotted: str) -> ast.stmt:
    """A class, or a method of one; the last of that name, as overloads come first."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in dotted.split("."):
        node = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part
        ][-1]
        body = node.body
    return node


def _texts(path: Path) -> set[str]:
    """Texts and names in a file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


if __name__ == "__main__":
    text = json.dumps({"version": sys.argv[2], **read(Path(sys.argv[1]))}, indent=1)
    FILE.write_text(
        re.sub(r"\[[^\[\]]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
    )  # a list is one line
