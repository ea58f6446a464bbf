"""What `launch/ray.sh submit` uploads: no secret, whatever its name, place or form."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env import packaging

from reasontrain.cluster import upload

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----"
SECRETS = {
    ".env": "",
    ".env.local": "",
    "prod.env": "",
    "certs/server.pem": "",
    "certs/server.KEY": "",
    "wandb/run-1/files/config.yaml": "",
    "home/.ray/auth_token": "",
    "home/.ssh/config": "",
    "keys/id_ed25519": "",
    "keys/id_rsa.old": "",
    ".netrc": "",
    ".cache/huggingface/token": "",
    "hf_token.txt": "",
    "credentials.json": "",
    "aws/credentials": "",
    ".config/gcloud/application_default_credentials.json": "",
    "my service_account.json": "",
    "deploy [1].txt": KEY,
    "#notes!.md": "the token is hf_" + "a" * 34,
    "run.sh": "export WANDB_API_KEY=" + "0123456789abcdef" * 2,
    "sub/settings.yaml": "openai_api_key: sk-proj-" + "x" * 40,
    "ci.txt": "ghp_" + "b" * 36,
    "aws.ini": "AKIA" + "ABCDEFGH12345678",
}
HARMLESS = {
    "recipe.yaml": "name: a\nhub: openai/gsm8k\n",
    "reward.py": "def reward(problem, response): return 'token' in response",
    "tokenizer.json": "{}",
    "special_tokens_map.json": "{}",
    "keyboard.txt": "hf_hub and sk-learn",
    "environment.json": "{}",
    "run.sbatch": "export HF_TOKEN=$HF_TOKEN",
    "docs/run.sh": "a file of the name of one that holds a secret",
}


def test_every_secret_is_left_out_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    for name, content in {**SECRETS, **HARMLESS, ".gitignore": "out/\n", "out/x.pem": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "link").symlink_to(folder / "certs")  # Ray follows it
    monkeypatch.setattr(sys, "argv", ["upload", str(folder)])
    monkeypatch.setattr(upload, "SHOWN", 99)
    upload.main()
    said = capsys.readouterr()
    listed = {line.strip() for line in said.err.splitlines()[1:]}
    assert listed == {*SECRETS, "link/server.pem", "link/server.KEY"}
    package = tmp_path / "package.zip"
    packaging.create_package(
        str(folder),
        package,
        include_gitignore=True,
        include_parent_dir=False,
        excludes=json.loads(said.out)["excludes"],
    )
    with zipfile.ZipFile(package) as archive:
        files = {name for name in archive.namelist() if not name.endswith("/")}
    assert files == {*HARMLESS, ".gitignore"}


def test_nothing_is_said_about_a_folder_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("name: a")
    monkeypatch.setattr(sys, "argv", ["upload", str(tmp_path)])
    upload.main()
    assert capsys.readouterr() == ('{"excludes": []}\n', "")


def test_what_git_ignores_is_searched_where_ray_uploads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitignore").write_text("*.pem")
    (tmp_path / "server.pem").touch()
    assert upload.secrets(tmp_path) == []
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert upload.secrets(tmp_path) == ["server.pem"]


def test_this_repository_holds_none() -> None:
    assert upload.secrets(Path(__file__).parents[2]) == []
