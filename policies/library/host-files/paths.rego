# METADATA
# title: Guardrails for files on a host
# description: |
#   Rules for the kinds of host.gitopsd.io. Take single objects out of a rule
#   with an exception rule of this package, in a file of your own.
package host_files

import data.gitopsd.host

# METADATA
# title: Paths stay within the allowed roots
# description: |
#   The path decides what a commit can reach on the host. The roots come from
#   data.gitopsd.host.roots. A path with empty steps or with . and .. is outside,
#   because it does not name the place it looks like.
# custom:
#   remediation: Move the object below an allowed root, or have the owner of the policy add a root to data.gitopsd.host.roots.
deny_path_outside_roots contains msg if {
	is_host_object
	has_path
	roots_known
	not within_roots(input.spec.path)
	msg := sprintf("%s: outside the allowed roots (%s)", [place, concat(", ", host.roots)])
}

deny_path_outside_roots contains msg if {
	is_host_object
	not has_path
	msg := "spec.path: missing or not a string"
}

# METADATA
# title: Allowed roots are configured
# description: Without data.gitopsd.host.roots no path can be judged, and what cannot be judged is not allowed.
# custom:
#   remediation: |
#     Add a data file to the policy set: {"gitopsd": {"host": {"roots": ["/etc/myapp"]}}}.
deny_roots_not_configured contains msg if {
	is_host_object
	not roots_known
	msg := "data.gitopsd.host.roots is not a list of absolute paths, so no path can be allowed; add it to the data of the policy set"
}

host_kinds := {"File", "Directory", "Symlink"}

is_host_object if {
	startswith(input.apiVersion, "host.gitopsd.io/")
	input.kind in host_kinds
}

has_path if is_string(input.spec.path)

roots_known if {
	is_array(host.roots)
	count(host.roots) > 0
	every root in host.roots {
		clean(root)
	}
}

within_roots(path) if {
	clean(path)
	some root in host.roots
	under(path, trim_suffix(root, "/"))
}

under(path, root) if path == root

under(path, root) if startswith(path, concat("", [root, "/"]))

# clean holds for absolute paths that mean the place they name: no step is empty
# or goes up. One slash at the end does no harm.
clean(path) if {
	is_string(path) # of roots, which nobody has checked
	startswith(path, "/")
	steps := split(trim_suffix(path, "/"), "/")
	every i, step in steps {
		step_ok(i, step)
	}
}

step_ok(0, "")

step_ok(i, step) if {
	i > 0
	not step in {"", ".", ".."}
}

# place is how messages name the object: by its path if it has one.
place := input.spec.path if {
	has_path
} else := sprintf("%s %s", [input.kind, object.get(input, ["metadata", "name"], "without a name")])
