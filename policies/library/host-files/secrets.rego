package host_files

# METADATA
# title: No secrets in plain text
# description: |
#   What is in Git is known to everybody who ever cloned it. The rule knows
#   private key blocks, AWS access keys, and values of high entropy that are
#   assigned to names such as password or token. Files with spec.sensitive: true
#   are not looked into. Messages name the line and never the value.
# custom:
#   remediation: Take the value out of the repository, replace it (it counts as leaked), and refer to a secret; a value that is none may be taken out by spec.sensitive or an exception.
deny_plaintext_secret contains msg if {
	has_text
	some i, line in split(text, "\n")
	what := secret_kind(line)
	msg := sprintf("%s: line %d of the content looks like %s", [place, i + 1, what])
}

has_text if {
	is_host_object
	input.kind == "File"
	not input.spec.sensitive == true
}

text := input.spec.content if is_string(input.spec.content)

text := base64.decode(input.spec.contentBase64) if {
	not is_string(object.get(input.spec, "content", null))
	is_string(input.spec.contentBase64)
	base64.is_valid(input.spec.contentBase64)
}

secret_kind(line) := "a private key" if {
	regex.match(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----`, line)
} else := "an AWS access key" if {
	regex.match(`(^|[^A-Za-z0-9])(AKIA|ASIA)[0-9A-Z]{16}($|[^A-Za-z0-9])`, line)
	not contains(line, "EXAMPLE")
} else := "an assigned password, token or key" if {
	some [_, name, value] in regex.find_all_string_submatch_n(assignment, line, -1)
	not about_secrets(name)
	random(value)
}

# assignment matches name, separator and value, as in DB_PASSWORD="..." and
# api_key: ....
assignment := `(?i)((?:password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|credential)[a-z0-9_]*)["']?\s*(?::=|=>|=|:)\s*["']?([^\s"',;]+)`

# about_secrets holds for names of things that go with a secret and are none.
about_secrets(name) if {
	regex.match(`(?i)_?(name|file|path|dir|ref|id|url|uri|host|endpoint|type|alg|algorithm|ttl|timeout|expiry|length|policy|version)$`, name)
}

# random tells generated values from words, paths, addresses and placeholders:
# long enough, of at least three kinds of characters, few of them twice.
random(value) if {
	count(value) >= 12
	not placeholder(value)
	kinds := [k | some k in [`[a-z]`, `[A-Z]`, `[0-9]`, `[^A-Za-z0-9]`]; regex.match(k, value)]
	count(kinds) >= 3
	characters := {c | some c in split(value, "")}
	count(characters) >= 9
}

random(value) if { # hexadecimal digits have two kinds only
	regex.match(`^[0-9a-fA-F]{32,}$`, value)
	characters := {c | some c in split(lower(value), "")}
	count(characters) >= 9
}

placeholder(value) if regex.match(`^(/|\./|~/|[a-z+]+://[^@]*$|\$|%|<|\{|!|@|&)`, value)

placeholder(value) if regex.match(`\$\{|\{\{|\$\(|<[a-z_ -]+>|%\(|\(`, value)

placeholder(value) if regex.match(`(?i)(change.?me|example|placeholder|dummy|redacted|not.?set|your.?|xxxx|\*\*\*\*)`, value)

placeholder(value) if regex.match(`^[A-Za-z_]+([._-][A-Za-z_]+)+$`, value)
