#!/usr/bin/env bash
# Train on this machine: launch/local.sh RECIPE [key.path=value ...]
# A recipe with a `cluster` section starts its own Ray, on loopback and with a token; any other runs in one process.
set -euo pipefail
if (($# == 0)) || [[ $1 == -* ]]; then
  sed -n '2s/^# //p' "$0" >&2
  exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v reasontrain >/dev/null || PATH=$root/.venv/bin:$PATH # the active environment, else that of `make`

unset RAY_ADDRESS
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
exec reasontrain train "$@"
