"""Secrets among the files that Ray would upload: `python -m reasontrain.cluster.upload FOLDER`.

Prints the runtime environment that leaves them out, as JSON, and lists them on standard error.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from ray._private import ray_constants
from ray._private.runtime_env import packaging

FOLDERS = (
    ".ssh",
    ".ray",
    ".ray-*",
    ".aws",
    ".azure",
    ".config",
    ".docker",
    ".gnupg",
    ".huggingface",
    ".kube",
    "gcloud",
    "wandb",
)
"""Folders that hold keys, tokens or copies of an environment; patterns, in lower case."""
FILES = (
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.p8",
    "*.ppk",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.gpg",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    "_netrc",
    ".pypirc",
    ".npmrc",
    ".pgpass",
    ".git-credentials",
    ".htpasswd",
    "auth_token",
    "token",
    "token.txt",
    "token.json",
    "stored_tokens",
    "*.token",
    "*[_-]token",
    "*[_-]token.txt",
    "kubeconfig*",
    "credential*",
    "*[._-]credential*",
    "client_secret*",
    "*service[_-]account*.json",
    "secret",
    "secrets",
    "secret.*",
    "secrets.*",
    "*.secret",
    "*.secrets",
    "*password*.txt",
    "api[_-]key*",
    "*[._-]api[_-]key*",
)
"""Files that hold a secret by their name; patterns, in lower case."""
CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"
    rb"|\b(?:hf|api_org)_[A-Za-z0-9]{30,}"  # Hugging Face
    rb"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    rb"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{60,}|\bglpat-[\w-]{20,}"
    rb"|\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}"  # OpenAI, Anthropic
    rb"|\bwandb_v1_\w{30,}|\bxox[abprs]-[A-Za-z0-9-]{20,}|\bAIza[\w-]{35}\b"
    rb"|(?i:\b(?:wandb|hf|hugging_?face\w*|openai|anthropic|aws)_\w*(?:key|token|secret)\b"
    rb"[\"']?\s*[:=]\s*[\"']?[\w+/-]{16,})"
)
"""Keys and tokens by the form that their issuers give them."""
READ_BYTES = 1 << 20
"""Bytes of a file that are searched."""
SHOWN = 20


def uploaded(folder: Path) -> Iterator[Path]:
    """Every file of a folder that Ray would upload, after .gitignore and .rayignore."""
    files: list[Path] = []
    excludes = [packaging._get_excludes(folder, ray_constants.get_runtime_env_default_excludes())]
    gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(
        folder, excludes, files.append, include_gitignore=gitignore, logger=_SILENT
    )
    yield from (path for path in files if path.is_file())


def secrets(folder: Path) -> list[str]:
    """The files that would be uploaded and hold a secret, or look like one; relative, sorted."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in uploaded(folder)
        if _named_secret(path.relative_to(folder)) or _holds_secret(path)
    )


def runtime_env(paths: list[str]) -> dict[str, list[str]]:
    """Ray's runtime environment that leaves these files out."""
    # The paths are patterns of .gitignore, in which these characters have a meaning.
    return {"excludes": ["/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path) for path in paths]}


def _named_secret(path: Path) -> bool:
    *folders, name = (part.lower() for part in path.parts)
    return any(fnmatch(name, pattern) for pattern in FILES) or any(
        fnmatch(part, pattern) for part in folders for pattern in FOLDERS
    )


def _holds_secret(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return CONTENT.search(stream.read(READ_BYTES)) is not None
    except OSError:
        return False  # Ray cannot read it either


def main() -> None:
    """Print the runtime environment of the folder in the first argument."""
    left_out = secrets(Path(sys.argv[1]))
    if left_out:
        more = [f"  and {len(left_out) - SHOWN} more"] if len(left_out) > SHOWN else []
        lines = ["left out of the upload, because they are or look like secrets:"]
        lines += [f"  {path}" for path in left_out[:SHOWN]]
        print("\n".join(lines + more), file=sys.stderr)
    print(json.dumps(runtime_env(left_out)))


_SILENT = logging.getLogger(f"{__name__}.ray")
_SILENT.setLevel(logging.CRITICAL)

if __name__ == "__main__":
    main()
