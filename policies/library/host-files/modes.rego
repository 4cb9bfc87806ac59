package host_files

# METADATA
# title: No setuid, setgid or sticky executables
# description: |
#   A file with one of these bits runs with rights that its caller does not have.
#   The sticky bit of a directory only protects its content and is allowed.
# custom:
#   remediation: Drop the first digit of spec.mode, as in "0755"; grant rights by group, sudo or capabilities of the unit.
deny_special_mode_bits contains msg if {
	has_mode
	some name, bit in {"setuid": 4, "setgid": 2}
	bits.and(special_digit, bit) != 0
	msg := sprintf("%s: mode %s has the %s bit", [place, input.spec.mode, name])
}

deny_special_mode_bits contains msg if {
	has_mode
	input.kind == "File"
	bits.and(special_digit, 1) != 0
	some digit in mode_digits
	bits.and(digit, 1) != 0
	msg := sprintf("%s: mode %s is executable and sticky", [place, input.spec.mode])
}

# METADATA
# title: Nothing is world-writable
# description: |
#   What everybody may write, everybody may turn against its readers. A directory
#   with the sticky bit, as /tmp has it, is allowed.
# custom:
#   remediation: Take write permission from others, as in "0664" or "0775", and put the writers into a group.
deny_world_writable contains msg if {
	has_mode
	bits.and(mode_digits[2], 2) != 0
	not sticky_directory
	msg := sprintf("%s: mode %s lets everybody write", [place, input.spec.mode])
}

# METADATA
# title: Modes are quoted octal digits
# description: A mode of another form could mean something else to the reader than to the host, and the other rules could not judge it.
# custom:
#   remediation: Write the mode as a string of three or four octal digits, as in "0644".
deny_mode_unreadable contains msg if {
	is_host_object
	mode := input.spec.mode
	not readable(mode)
	msg := sprintf("%s: mode %s is not a string of three or four octal digits", [place, json.marshal(mode)])
}

readable(mode) if {
	is_string(mode)
	regex.match(`^0?[0-7]{3,4}$`, mode)
}

has_mode if {
	is_host_object
	readable(input.spec.mode)
}

# all_digits are the five digits of the mode, filled up on the left.
all_digits := [to_number(d) | some d in split(substring(concat("", ["00", input.spec.mode]), count(input.spec.mode) - 3, 5), "")]

special_digit := all_digits[1]

mode_digits := array.slice(all_digits, 2, 5)

sticky_directory if {
	input.kind == "Directory"
	bits.and(special_digit, 1) != 0
}
