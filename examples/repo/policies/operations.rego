# METADATA
# title: Rules of the operations team
# description: What every object in the fleet has to say, and what nginx must not.
package operations

deny contains msg if {
	not input.metadata.labels.team
	msg := sprintf("%s %s has no label team: say who is woken when it breaks", [input.kind, input.metadata.name])
}

deny contains msg if {
	input.kind == "File"
	startswith(input.spec.path, "/etc/nginx/")
	contains(input.spec.content, "server_tokens on")
	msg := "nginx must not tell its version: set server_tokens off"
}

warn contains msg if {
	input.kind == "File"
	startswith(input.spec.path, "/etc/cron.d/")
	not contains(input.spec.content, " root ")
	not contains(input.spec.content, " nobody ")
	msg := sprintf("cron job %s runs as an unusual user", [input.metadata.name])
}
