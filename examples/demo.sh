#!/usr/bin/env bash
# Plays the main story of gitopsd on real files and a real Git repository in a
# temporary folder. Every step says what it does and checks what came of it;
# the exit status is 0 only if each was observed.
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/lib.sh
bin=$(realpath "${1:-bin/gitopsd}")
dir=$(mktemp -d "${TMPDIR:-/tmp}/gitopsd-demo.XXXXXX")
export GITOPSD_SOCKET=$dir/gitopsd.sock
daemon=

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'; else bold='' green='' red='' off=''; fi
scene() { printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
# shown COMMAND...: the command as it can be pasted into a shell.
shown() {
	local word line='$'
	for word; do
		case $word in
		'' | *[!A-Za-z0-9_./:=@%+,-]*) line+=" '${word//\'/\'\\\'\'}'" ;;
		*) line+=" $word" ;;
		esac
	done
	printf '%s\n' "$line"
}
run() { shown "$@"; "$@"; }
gitopsd() { shown gitopsd "$@"; "$bin" "$@"; }
ok() { printf '%s  ok: %s%s\n' "$green" "$*" "$off"; }
fail() {
	printf '%s  not so: %s%s\n' "$red" "$*" "$off" >&2
	echo "The daemon's log:" >&2
	tail -n 40 "$dir/daemon.log" >&2 || true
	exit 1
}
finish() {
	[ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null; } || true
	rm -rf "$dir"
}
trap finish EXIT

# observe WHAT COMMAND...: the command must succeed within 20 seconds.
observe() {
	local what=$1 end=$((SECONDS + 20))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || fail "$what"
		sleep 0.1
	done
	ok "$what"
}
says() { "$bin" status "$1" -o json | grep -q "$2"; }
synced() { "$bin" status "$@" --exit-code >/dev/null; }
commit() {
	git -C "$dir/fleet" add --all
	git -C "$dir/fleet" commit --quiet --message "$1"
	git -C "$dir/fleet" push --quiet origin main
	printf '%s && git push\n' "$(shown git commit -m "$1")"
}

scene "A Git repository that describes a web host, and a daemon that follows it"
prepare "$dir"
run git -C "$dir/fleet" log --oneline
"$bin" run --config "$dir/etc/gitopsd.yaml" --state-dir "$dir/state" --socket "$GITOPSD_SOCKET" --metrics-address= >"$dir/daemon.log" 2>&1 &
daemon=$!
observe "the daemon answers" "$bin" status
observe "every application is in step with Git" synced
gitopsd status
observe "nginx.conf was made from its template" grep -q 'worker_processes 2;' "$dir/host/etc/nginx/nginx.conf"
observe "the settings of production are there, after those of staging" grep -q 'environment = production' "$dir/host/srv/app/production/settings.ini"

scene "A good commit: more workers for the web server"
sed -i 's/worker_connections 1024/worker_connections 4096/' "$dir/fleet/hosts/web/nginx.conf.tmpl"
commit "Allow more connections"
observe "the new value is on the host" grep -q 'worker_connections 4096' "$dir/host/etc/nginx/nginx.conf"

scene "A field removed: the settings of production no longer state a mode"
sed -i "/mode:/d" "$dir/fleet/apps/settings/production/settings.yaml"
commit "Let production settings have the default mode"
observe "the file has the default mode" sh -c "[ \"\$(stat -c %a '$dir/host/srv/app/production/settings.ini')\" = 644 ]"

scene "A commit that policy refuses: nginx would tell its version"
sed -i 's/server_tokens off/server_tokens on/' "$dir/fleet/hosts/web/nginx.conf.tmpl"
commit "Tell the version"
observe "the revision is refused" says web Refused
gitopsd status web || true
grep -q 'server_tokens off' "$dir/host/etc/nginx/nginx.conf" || fail "the host kept what was good"
ok "the host kept what was good"
git -C "$dir/fleet" revert --no-edit HEAD >/dev/null
git -C "$dir/fleet" push --quiet origin main
echo '$ git revert HEAD && git push'
observe "after the revert all is in step again" synced

scene "Drift: somebody edits the host by hand"
run sh -c "echo 'Welcome, stranger' >'$dir/host/etc/motd'"
observe "the change is undone" grep -q 'kept in step with Git' "$dir/host/etc/motd"
observe "the drift was noticed, and is on record" sh -c "'$bin' audit query --app web --kind DriftDetected | grep -q /spec/content"
gitopsd audit query --app web --limit 3

scene "A prune over budget: one commit removes five files"
git -C "$dir/fleet" rm --quiet hosts/web/cron.yaml hosts/web/motd.yaml
sed -i '/^---$/,$d' "$dir/fleet/hosts/web/nginx.yaml"
commit "Remove more than was meant"
observe "the plan waits for an approval" says web Held
gitopsd diff web || true
[ -f "$dir/host/etc/motd" ] || fail "nothing was deleted"
ok "nothing was deleted"
digest=$("$bin" status web -o json | sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p')
gitopsd approve web --digest "$digest" --why "the host gets a new role"
observe "after the approval the files are gone" sh -c "[ ! -e '$dir/host/etc/motd' ] && [ ! -e '$dir/host/etc/cron.d/logrotate' ]"
observe "every application is in step with Git" synced

scene "The truth, at the end"
gitopsd status
gitopsd history web --limit 5
gitopsd audit verify
printf '\n%sEvery step was observed.%s\n' "$bold" "$off"
