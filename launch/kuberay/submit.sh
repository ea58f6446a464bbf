#!/usr/bin/env bash
# Train on Kubernetes: launch/kuberay/submit.sh RECIPE out=/runs [key.path=value ...]
# Checks the recipe with these overrides, then creates the job of rayjob.yaml (image, volume and resources are set there). The
# recipe is read from the image, in which the repository is the working directory. MANIFEST=FILE takes another manifest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
command -v reasontrain >/dev/null || PATH=$root/.venv/bin:$PATH # the active environment, else that of `make`
if (($# == 0)) || [[ $1 == -* ]]; then
  sed -n '2,/^set /s/^# //p' "$0" >&2
  exit 2
fi
if [[ " ${*:2}" != *" out=/"* ]]; then
  echo "kuberay/submit.sh: say where runs go in the volume, as in out=/runs (a pod's own folders are lost with it)" >&2
  exit 2
fi

reasontrain validate "$@" >&2
python -c '
import json, shlex, sys
lines = open(sys.argv[1], encoding="utf-8").read().split("\n")
at = next(i for i, line in enumerate(lines) if line.startswith("  entrypoint:"))
lines[at] = "  entrypoint: " + json.dumps(shlex.join(["reasontrain", "train", *sys.argv[2:]]))
print("\n".join(lines), end="")' "${MANIFEST:-$root/launch/kuberay/rayjob.yaml}" "$@" | kubectl create -f -
