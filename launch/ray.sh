#!/usr/bin/env bash
# A Ray cluster of your own machines, with token authentication. Each machine needs reasontrain installed and the same token.
#   launch/ray.sh head [ray start options]             start the cluster here; creates ~/.ray/auth_token if missing
#   launch/ray.sh worker ADDRESS [ray start options]   join from another machine, which has a copy of that file
#   launch/ray.sh submit RECIPE out=/shared/folder [key.path=value ...]   run a recipe on it, with the files of this folder
#   launch/ray.sh stop                                 end the Ray that this script started on this machine, and no other
# A cluster of this machine alone listens on loopback only: launch/ray.sh head --node-ip-address=127.0.0.1
# The dashboard listens on the head's loopback only. From elsewhere: ssh -L 8265:127.0.0.1:8265 HEAD, and submit as on the head.
# `submit` checks the recipe first, and leaves out files that are secrets: .env, *.pem, *.key, wandb/, tokens, credentials.
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

close_token() { # anyone who can read the token can run code on the cluster, and Ray leaves it readable by all users
  if [[ -z ${RAY_AUTH_TOKEN_PATH:-} && -d ~/.ray ]]; then chmod 700 ~/.ray; fi
  if [[ -f $token ]]; then chmod 600 "$token"; fi
}

need_token() {
  [[ -n ${RAY_AUTH_TOKEN:-} || -s $token ]] || fail "there is no token in $token; copy that file from the head (scp), readable by you alone"
  close_token
}

# Ray opens its session folders to all users, sockets included: they lie in a folder that only this user can enter. What was
# started is noted there, for `stop`.
started=${XDG_STATE_HOME:-$HOME/.local/state}/reasontrain/rays-${HOSTNAME:-here}

start_ray() { # options of `ray start`
  local temporary='' option previous=''
  for option in "$@"; do
    case $option in
      --temp-dir=*) temporary=${option#*=} ;;
      --node-ip-address=127.*) export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 ;; # else Ray takes the outer address instead
    esac
    if [[ $previous == --temp-dir ]]; then temporary=$option; fi
    if [[ $previous == --node-ip-address && $option == 127.* ]]; then export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0; fi
    previous=$option
  done
  if [[ -z $temporary ]]; then
    temporary=$(python -c 'from reasontrain.cluster.start import private_folder as f; print(f() / "cluster")')
    set -- "$@" --temp-dir="$temporary"
  else
    mkdir -p "$temporary"
    chmod 700 "$temporary"
  fi
  mkdir -p "$(dirname "$started")"
  echo "$temporary" >>"$started"
  ray start "$@"
  if [[ $temporary != */ray-"$(id -u)"/cluster ]]; then chmod 700 "$temporary"; fi
}

head() {
  if [[ -z ${RAY_AUTH_TOKEN:-} ]]; then
    python -c 'from reasontrain.cluster.start import close_token; close_token(create=True)'
    need_token
  fi
  # A run stopped by `ray job stop` saves a checkpoint first; Ray's default is to kill it after three seconds.
  export RAY_JOB_STOP_WAIT_TIME_S=${RAY_JOB_STOP_WAIT_TIME_S:-600}
  start_ray --head --dashboard-host=127.0.0.1 "$@"
  echo "On the other machines: copy $token to ~/.ray/auth_token, then launch/ray.sh worker with the address above."
}

worker() {
  if (($# == 0)) || [[ $1 != *:* ]]; then fail "worker wants the head's ADDRESS, as host:port"; fi
  need_token
  start_ray --address="$1" "${@:2}"
}

submit() {
  if (($# == 0)); then fail "submit wants a RECIPE"; fi
  need_token
  # Ray copies this folder to the head, and the recipe's paths are relative to the copy. Output must outlive the copy.
  [[ " ${*:2}" == *" out=/"* ]] ||
    fail "say where runs go on the cluster: out=/shared/folder (a relative one lies in Ray's copy of this folder, which it deletes)"
  reasontrain validate "$@" >&2
  local excludes
  excludes=$(python -m reasontrain.cluster.upload .)
  ray job submit --working-dir . --runtime-env-json "$excludes" -- reasontrain train "$@"
}

ray_processes() { # FOLDER: the processes of the Ray that has its sessions there; its workers end with them
  ps -ww -u "$(id -u)" -o pid=,args= | awk -v inside="$1/session_" 'index($0, inside) && !/awk -v inside/ { print $1 }'
}

stop() {
  [[ -s $started ]] || fail "no Ray of this script runs on this machine"
  local folder process left
  sort -u "$started" | while read -r folder; do
    for signal in TERM KILL; do
      for process in $(ray_processes "$folder"); do kill -"$signal" "$process" 2>/dev/null || true; done
      for _ in {1..50}; do
        left=$(ray_processes "$folder")
        if [[ -z $left ]]; then break; fi
        sleep 0.2
      done
    done
    echo "ended the Ray in $folder"
  done
  rm -f "$started"
}

if (($# == 0)); then usage; fi
case $1 in
  head | worker | submit | stop) "$@" ;;
  *) usage ;;
esac
