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
    "collective_rpc": LLM,
}
"""Methods, and the file whose class `LLM` has or inherits them."""
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
    "entrypoints/rl/offline.py": ["init_info", "update_info"],
    "v1/worker/gpu_worker.py": ["weights"],
    "config/parallel.py": ["mp", "uni"],
    "envs.py": [
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_NO_USAGE_STATS",
        "VLLM_HOST_IP",
        "VLLM_LOGGING_LEVEL",
        "VLLM_CPU_OMP_THREADS_BIND",
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
            name: parameters(_inherited(vllm, path, "LLM", name)) for name, path in METHODS.items()
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


def _inherited(vllm: Path, path: str, cls: str, name: str) -> ast.stmt:
    """A method of a class or of the classes that it inherits from, in Python's order.

    Bases are looked up in the files that the class's own file imports them from.
    """
    found = _in_bases(vllm, path, cls, name)
    assert found is not None, f"{cls} in {path} has no {name}"
    return found


def _in_bases(vllm: Path, path: str, cls: str, name: str) -> ast.stmt | None:
    tree = ast.parse((vllm / path).read_text())
    (body,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls]
    own = [n for n in body.body if isinstance(n, ast.FunctionDef) and n.name == name]
    if own:
        return own[-1]
    homes = {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm.")
        for alias in node.names
    }
    for base in body.bases:
        bare = ast.unparse(base).partition("[")[0]
        if bare in homes:
            home = homes[bare].removeprefix("vllm.").replace(".", "/") + ".py"
            if (vllm / home).is_file() and (method := _in_bases(vllm, home, bare, name)):
                return method
    return None


def _texts(path: Path) -> set[str]:
    """Texts and names in a file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


if __name__ == "__main__":
    text = json.dumps({"version": sys.argv[2], **read(Path(sys.argv[1]))}, indent=1)
    FILE.write_text(
        re.sub(r"\[[^\[\]]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
    )  # a list is one line
