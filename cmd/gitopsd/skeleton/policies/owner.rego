package main

# Every object says who answers for it.
deny contains msg if {
	not input.metadata.labels.team
	msg := sprintf("%s %s has no label team", [input.kind, input.metadata.name])
}
