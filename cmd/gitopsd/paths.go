package main

import "path/filepath"

// The places of a daemon that runs as root. A user's own daemon lives in the
// directories of the XDG base directory specification.
const (
	systemSocket   = "/run/gitopsd/gitopsd.sock"
	systemStateDir = "/var/lib/gitopsd"
	systemConfig   = "/etc/gitopsd/gitopsd.yaml"
)

// defaultSocket is GITOPSD_SOCKET, or the socket of the user's own daemon, or
// that of the host's.
func defaultSocket(getenv func(string) string, uid int) string {
	if path := getenv("GITOPSD_SOCKET"); path != "" {
		return path
	}
	if dir := getenv("XDG_RUNTIME_DIR"); uid != 0 && dir != "" {
		return filepath.Join(dir, "gitopsd.sock")
	}
	return systemSocket
}

func defaultStateDir(getenv func(string) string, uid int) string {
	return userPath(getenv, uid, "XDG_STATE_HOME", ".local/state", "gitopsd", systemStateDir)
}

func defaultConfig(getenv func(string) string, uid int) string {
	return userPath(getenv, uid, "XDG_CONFIG_HOME", ".config", "gitopsd/gitopsd.yaml", systemConfig)
}

func userPath(getenv func(string) string, uid int, variable, home, name, system string) string {
	switch {
	case uid == 0:
		return system
	case getenv(variable) != "":
		return filepath.Join(getenv(variable), name)
	case getenv("HOME") != "":
		return filepath.Join(getenv("HOME"), home, name)
	default:
		return system
	}
}
