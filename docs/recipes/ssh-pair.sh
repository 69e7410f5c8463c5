#!/usr/bin/env bash
# Two machines that reach each other over ssh: this one and OTHER. Both need the same ar, installed in ENVIRONMENT.
# docs/recipes/ssh-pair.sh OTHER [options of ar loop]
set -euo pipefail

other=${1:?usage: ssh-pair.sh OTHER [options of ar loop]}
shift
ENVIRONMENT=${ENVIRONMENT:-$HOME/env}
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
mine=$(hostname -I | cut -d' ' -f1)

"$ENVIRONMENT/bin/ray" start --head --node-ip-address="$mine" --port=6379
trap 'ssh "$other" "$ENVIRONMENT/bin/ray stop" || true; "$ENVIRONMENT/bin/ray" stop' EXIT
ssh "$other" "RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 $ENVIRONMENT/bin/ray start --address=$mine:6379"
"$ENVIRONMENT/bin/ar" loop --fleet ray --address "$mine:6379" "$@"
