package main

deny contains msg if {
	not input.metadata.labels.team
	msg := sprintf("%s has no label team\n::error::forged", [input.metadata.name])
}

warn contains msg if {
	contains(input.metadata.labels.team, ",")
	msg := "team holds a comma"
}
