package main

deny contains msg if {
	not input.metadata.labels.team
	msg := sprintf("%s has no label team\n::error::forged", [input.metadata.name])
}

warn contains result if {
	team := input.metadata.labels.team
	contains(team, ",")
	result := {"msg": "team holds a comma", "team": team}
}
