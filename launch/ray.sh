#!/usr/bin/env bash
# A Ray cluster of your own machines, with token authentication. Each machine needs reasontrain installed and the same token.
#   launch/ray.sh head [ray start options]             start the cluster here; creates ~/.ray/auth_token if missing
#   launch/ray.sh worker ADDRESS [ray start options]   join from another machine, which has a copy of that file
#   launch/ray.sh submit RECIPE out=/shared/folder [key.path=value ...]   run a recipe on it, with the files of this folder
#   launch/ray.sh stop                                 end all Ray processes of your user on this machine
# The dashboard listens on the head's loopback only. From elsewhere: ssh -L 8265:127.0.0.1:8265 HEAD, and submit as on the head.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command -v reasontrain >/dev/null || PATH=$root/.venv/bin:$PATH # the active environment, else that of `make`
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

fail() {
  echo "launch/ray.sh: $1" >&2
  exit 2
}

token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}

need_token() {
  [[ -n ${RAY_AUTH_TOKEN:-} || -s $token ]] || fail "there is no token in $token; copy that file from the head (scp), readable by you alone"
}

head() {
  if [[ -z ${RAY_AUTH_TOKEN:-} ]]; then
    # Anyone who can read the token can run code on the cluster, and Ray leaves it readable by all users.
    mkdir -p ~/.ray && chmod 700 ~/.ray
    [[ -s $token ]] || ray get-auth-token --generate >/dev/null
    need_token
    chmod 600 "$token"
  fi
  # A run stopped by `ray job stop` saves a checkpoint first; Ray's default is to kill it after three seconds.
  RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-600} ray start --head --dashboard-host=127.0.0.1 "$@"
  echo "On the other machines: copy $token to ~/.ray/auth_token, then launch/ray.sh worker with the address above."
}

worker() {
  if (($# == 0)) || [[ $1 != *:* ]]; then fail "worker wants the head's ADDRESS, as host:port"; fi
  need_token
  ray start --address="$1" "${@:2}"
}

submit() {
  if (($# == 0)); then fail "submit wants a RECIPE"; fi
  need_token
  # Ray copies this folder to the head, and the recipe's paths are relative to the copy. Output must outlive the copy.
  [[ " ${*:2}" == *" out=/"* ]] ||
    fail "say where runs go on the cluster: out=/shared/folder (a relative one lies in Ray's copy of this folder, which it deletes)"
  ray job submit --working-dir . -- "$@"
}

if (($# == 0)); then usage; fi
case $1 in
  head | worker | submit) "$@" ;;
  stop) ray stop ;;
  *) usage ;;
esac
