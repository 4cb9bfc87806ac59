#!/usr/bin/env bash
# Starts the daemon on a copy of examples/repo in .run/ and stays. What was there
# before is kept: commit in .run/fleet, push, and watch.
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/lib.sh
bin=$(realpath "${1:-bin/gitopsd}")
dir=$PWD/.run
[ -d "$dir/fleet.git" ] || prepare "$dir"
cat <<EOT
Desired state:  $dir/fleet  (commit and push to change it)
The host:       $dir/host   (change a file by hand and see it healed)
In another terminal:
  export GITOPSD_SOCKET=$dir/gitopsd.sock
  $bin status --watch
Stop with Ctrl-C; nothing on the host changes by stopping.
EOT
exec "$bin" run --config "$dir/etc/gitopsd.yaml" --state-dir "$dir/state" --socket "$dir/gitopsd.sock" --metrics-address 127.0.0.1:9464
