package host_files_test

import data.host_files

roots := ["/etc/app", "/srv/www/"]

object_at(kind, path) := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": {"path": path}}

outside(object) if count(host_files.deny_path_outside_roots) > 0 with input as object with data.gitopsd.host.roots as roots

test_paths_within_pass if {
	every kind in ["File", "Directory", "Symlink"] {
		every path in ["/etc/app", "/etc/app/", "/etc/app/a/b.conf", "/srv/www/index.html", "/srv/www", "/etc/app/..data"] {
			not outside(object_at(kind, path))
		}
	}
}

test_paths_outside_fail if {
	every kind in ["File", "Directory", "Symlink"] {
		every path in ["/etc/application", "/etc", "/", "/etc/app/../passwd", "/etc/app//x", "/etc/app/./x", "etc/app/x", "", "../x", "/srv/wwwx"] {
			outside(object_at(kind, path))
		}
	}
}

test_path_of_another_type_fails if {
	outside(object_at("File", 7))
	outside({"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "File", "spec": {}})
}

test_objects_without_a_path_are_named_otherwise if {
	bad := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "File", "metadata": {"name": "x"}, "spec": {"mode": "0777"}}
	host_files.deny_world_writable == {"File x: mode 0777 lets everybody write"} with input as bad
	host_files.deny_world_writable == {"File without a name: mode 0777 lets everybody write"} with input as object.remove(bad, ["metadata"])
}

test_message_names_path_and_roots if {
	host_files.deny_path_outside_roots == {"/root/x: outside the allowed roots (/etc/app, /srv/www/)"} with input as object_at("File", "/root/x")
		with data.gitopsd.host.roots as roots
}

test_root_slash_holds_everything if {
	count(host_files.deny_path_outside_roots) == 0 with input as object_at("File", "/usr/x") with data.gitopsd.host.roots as ["/"]
}

test_other_objects_pass if {
	not outside({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
	not outside({"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "Other", "spec": {"path": "/root"}})
	not outside({"apiVersion": "systemd.gitopsd.io/v1alpha1", "kind": "File", "spec": {"path": "/root"}})
}

test_missing_roots_are_said if {
	count(host_files.deny_roots_not_configured) == 1 with input as object_at("File", "/etc/app/x")
	every bad in [[], "/etc", ["etc"], ["/etc/../root"], [7], null] {
		count(host_files.deny_roots_not_configured) == 1 with input as object_at("File", "/etc/app/x") with data.gitopsd.host.roots as bad
	}
}

test_configured_roots_pass if {
	count(host_files.deny_roots_not_configured) == 0 with input as object_at("File", "/x") with data.gitopsd.host.roots as roots
	count(host_files.deny_roots_not_configured) == 0 with input as {"apiVersion": "v1", "kind": "Service"}
}
