package main_test

import data.main

test_label_is_required if {
	main.deny["File motd has no label team"] with input as {"kind": "File", "metadata": {"name": "motd"}}
}

test_label_is_enough if {
	count(main.deny) == 0 with input as {"kind": "File", "metadata": {"name": "motd", "labels": {"team": "web"}}}
}
