# Shared by demo.sh and run.sh: a copy of examples/repo as a real Git
# repository, and a configuration that points the daemon at it and at a folder
# that stands for the host.

# prepare FOLDER: makes FOLDER/fleet.git (bare), FOLDER/fleet (a clone to work
# in), FOLDER/host (the host) and FOLDER/etc (the daemon's configuration).
prepare() {
	local dir=$1 example
	example="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/repo"
	mkdir -p "$dir/host/etc/nginx" "$dir/host/etc/cron.d" "$dir/host/srv/app" "$dir/etc"
	git init --quiet --bare --initial-branch=main "$dir/fleet.git"
	git clone --quiet "$dir/fleet.git" "$dir/fleet" 2>/dev/null
	cp -R "$example/." "$dir/fleet/"
	git -C "$dir/fleet" checkout --quiet -B main
	git -C "$dir/fleet" config user.name "Ada Admin"
	git -C "$dir/fleet" config user.email "ada@example.org"
	git -C "$dir/fleet" config commit.gpgsign false
	git -C "$dir/fleet" add --all
	git -C "$dir/fleet" commit --quiet --message "Describe the web host"
	git -C "$dir/fleet" push --quiet origin main
	cp -R "$example/policies" "$dir/etc/"
	sed -e "s|file:///srv/git/fleet.git|file://$dir/fleet.git|" \
		-e "s|interval: 30s|interval: 2s|" \
		-e "s|^  file:\$|  file:\n    prefix: $dir/host|" \
		"$example/gitopsd.yaml" >"$dir/etc/gitopsd.yaml"
}
