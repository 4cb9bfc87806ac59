package operations_test

import data.operations

object := {
	"apiVersion": "host.gitopsd.io/v1alpha1",
	"kind": "File",
	"metadata": {"name": "f", "labels": {"team": "web"}},
	"spec": {"path": "/etc/nginx/nginx.conf", "content": "server_tokens off;"},
}

test_good_object_is_allowed if {
	count(operations.deny) == 0 with input as object
}

test_team_is_required if {
	operations.deny["File f has no label team: say who is woken when it breaks"] with input as json.remove(object, ["/metadata/labels"])
}

test_version_is_not_told if {
	bad := json.patch(object, [{"op": "replace", "path": "/spec/content", "value": "server_tokens on;"}])
	operations.deny["nginx must not tell its version: set server_tokens off"] with input as bad
}

test_cron_user_is_noted if {
	job := json.patch(object, [
		{"op": "replace", "path": "/spec/path", "value": "/etc/cron.d/x"},
		{"op": "replace", "path": "/spec/content", "value": "1 2 * * * backup /bin/true"},
	])
	count(operations.warn) == 1 with input as job
}
