package host_files_test

import data.host_files

object_mode(kind, mode) := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": {"path": "/etc/app/x", "mode": mode}}

test_plain_modes_pass if {
	every kind in ["File", "Directory"] {
		every mode in ["0644", "644", "0755", "00755", "0000", "0664", "0750"] {
			count(host_files.deny_special_mode_bits) == 0 with input as object_mode(kind, mode)
			count(host_files.deny_world_writable) == 0 with input as object_mode(kind, mode)
			count(host_files.deny_mode_unreadable) == 0 with input as object_mode(kind, mode)
		}
	}
}

test_special_bits_fail if {
	every kind in ["File", "Directory"] {
		every mode in ["4755", "04755", "2755", "02711", "4644", "7755"] {
			count(host_files.deny_special_mode_bits) > 0 with input as object_mode(kind, mode)
		}
	}
	host_files.deny_special_mode_bits == {"/etc/app/x: mode 6755 has the setuid bit", "/etc/app/x: mode 6755 has the setgid bit"} with input as object_mode("File", "6755")
}

test_sticky_executable_fails if {
	count(host_files.deny_special_mode_bits) == 1 with input as object_mode("File", "1755")
	count(host_files.deny_special_mode_bits) == 1 with input as object_mode("File", "01645")
}

test_sticky_without_execution_passes if {
	count(host_files.deny_special_mode_bits) == 0 with input as object_mode("File", "1644")
	count(host_files.deny_special_mode_bits) == 0 with input as object_mode("Directory", "1755")
}

test_world_writable_fails if {
	every mode in ["0666", "777", "0002", "00766", "0757"] {
		count(host_files.deny_world_writable) == 1 with input as object_mode("File", mode)
	}
	count(host_files.deny_world_writable) == 1 with input as object_mode("Directory", "0777")
	count(host_files.deny_world_writable) == 1 with input as object_mode("File", "1666")
}

test_sticky_directory_may_be_world_writable if {
	count(host_files.deny_world_writable) == 0 with input as object_mode("Directory", "1777")
}

test_unreadable_modes_fail if {
	every mode in [420, "rw-r--r--", "0o644", "0888", "64", "", "000644", null, true] {
		count(host_files.deny_mode_unreadable) == 1 with input as object_mode("File", mode)
	}
}

test_unreadable_modes_are_no_error_elsewhere if {
	count(host_files.deny_world_writable) == 0 with input as object_mode("File", 420)
	count(host_files.deny_special_mode_bits) == 0 with input as object_mode("File", "x")
}

test_no_mode_passes if {
	no_mode := {"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "Symlink", "spec": {"path": "/etc/app/x", "target": "y"}}
	count(host_files.deny_mode_unreadable) == 0 with input as no_mode
	count(host_files.deny_world_writable) == 0 with input as no_mode
}
