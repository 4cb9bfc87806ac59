package host_files_test

import data.host_files

object_with(spec) := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "File", "metadata": {"name": "x"}, "spec": object.union({"path": "/etc/app/x"}, spec)}

found(content) if count(host_files.deny_plaintext_secret) > 0 with input as object_with({"content": content})

# The values are put together here, so that scanners of this repository stay calm.
private_key(kind) := sprintf("a\n-----BEGIN %sPRIVATE KEY%s-----\nMIIE", [kind, {true: " BLOCK", false: ""}[kind == "PGP "]])

access_key := concat("", ["AKIA", "IQ7N3TPCUVB2LXW5"])

generated := concat("", ["pZ8v", "Qk2m", "T9xR", "w4Lc"])

hexadecimal := concat("", ["9f86d081884c7d65", "9a2feaa0c55ad015"])

test_private_keys_fail if {
	every kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "PGP "] {
		found(private_key(kind))
	}
}

test_public_keys_pass if {
	not found("-----BEGIN PUBLIC KEY-----\nMIIB\n-----BEGIN CERTIFICATE-----\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI x@y")
}

test_aws_keys_fail if {
	found(sprintf("aws_access_key_id = %s", [access_key]))
	found(sprintf("key: '%s'", [access_key]))
}

test_aws_lookalikes_pass if {
	not found("aws_access_key_id = AKIAIOSFODNN7EXAMPLE")
	not found(sprintf("X%sY", [access_key]))
}

test_assigned_secrets_fail if {
	every format in [
		"password: %s", "DB_PASSWORD=%s", "export API_KEY='%s'", "\"client_secret\": \"%s\",",
		"token => %s;", "passphrase := \"%s\"", "  smtp_passwd=\"%s\"", "user=a password=%s host=b",
	] {
		found(sprintf(format, [generated]))
	}
	found(sprintf("session_secret=%s", [hexadecimal]))
}

test_no_secrets_pass if {
	every content in [
		"password: ${DB_PASSWORD}", "password = {{ .Values.password }}", "password: changeme-Please-123",
		"PasswordAuthentication no", "password_file: /run/secrets/Db-Password-1", "secret_name: My-App-Secret-01",
		"token_endpoint = https://idp.example.org:8443/oauth2/Token", "token: <Your-Token-123-Here>", "password=short1!A",
		"token_url: https://id.internal:8443/Oauth2/v2/token", "# the password is kept in the vault, see README-2.md",
		"secret = get_Secret(\"db-1\")", "password: \"\"", "ssl_certificate_key /etc/ssl/private/Web1.key;",
		"secret: My-App-Secret.Of_Mine", "password: Prefix-7-${DB_PASSWORD}", "secret = readSecret(7,8)+Db1",
		"tokens_per_second: 100000000000", "password_policy: Min-12-Characters-3-Kinds", "private_key_path=~/keys/Id_Ed25519",
		"api_key_header: X-Api-Key", "secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "", "checksum: 9f86d081884c7d659a2feaa0c55ad015",
	] {
		not found(content)
	}
}

test_base64_content_is_read if {
	encoded := base64.encode(sprintf("x\npassword: %s\n", [generated]))
	host_files.deny_plaintext_secret == {"/etc/app/x: line 2 of the content looks like an assigned password, token or key"} with input as object_with({"contentBase64": encoded})
}

test_message_keeps_the_value if {
	every msg in host_files.deny_plaintext_secret {
		not contains(msg, generated)
	} with input as object_with({"content": sprintf("password: %s", [generated])})
}

test_sensitive_files_pass if {
	count(host_files.deny_plaintext_secret) == 0 with input as object_with({"content": private_key(""), "sensitive": true})
	count(host_files.deny_plaintext_secret) == 1 with input as object_with({"content": private_key(""), "sensitive": false})
}

test_files_without_text_pass if {
	every spec in [{}, {"content": 7}, {"contentBase64": "%"}, {"contentBase64": 7}, {"content": "(sensitive)"}] {
		count(host_files.deny_plaintext_secret) == 0 with input as object_with(spec)
	}
	link := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "Symlink", "spec": {"path": "/x", "content": private_key("")}}
	count(host_files.deny_plaintext_secret) == 0 with input as link
}
