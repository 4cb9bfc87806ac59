//go:build failpoint

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/gittest"
)

// edit changes the desired state in one way.
func (l *life) edit() {
	names := slices.Sorted(maps.Keys(l.things))
	pick := func() string { return names[l.r.IntN(len(names))] }
	name := pick()
	x := l.things[name]
	keeper := strings.HasSuffix(name, "-keeper")
	switch what := l.r.IntN(9); {
	case what < 3 || len(names) < 8: // something new
		l.fates++
		l.add(fmt.Sprintf("t%d", l.fates))
		return
	case what == 3 && !keeper: // gone
		l.withdraw(name)
		l.steps = append(l.steps, "delete "+name)
		return
	case what == 4 && !keeper: // another name for what lies there: a hand-over
		delete(l.things, name)
		delete(l.fresh, name)
		l.fates++
		name = fmt.Sprintf("t%d", l.fates)
	case what == 5 && !keeper: // another application
		x.app = crashApps[l.r.IntN(len(crashApps))]
	case what == 6 && !keeper: // another path and name
		l.withdraw(name)
		l.fates++
		name = fmt.Sprintf("t%d", l.fates)
		x.path = fmt.Sprintf("%s-%d", x.path, l.fates)
	case what == 7:
		x.file = l.r.IntN(5)
	default:
		switch x.kind {
		case "File":
			x.content = fmt.Sprintf("content %d", l.r.IntN(1000))
		case "Symlink":
			x.content = fmt.Sprintf("/nowhere/%d", l.r.IntN(1000))
		}
		if x.kind != "Symlink" {
			x.mode = []string{"0750", "0700", "0755"}[l.r.IntN(3)]
		}
	}
	l.things[name] = x
	l.steps = append(l.steps, fmt.Sprintf("change %s to %+v", name, x))
}

// withdraw takes an object out again, with the file of somebody else's that was
// put there for it, if no commit has named it yet.
func (l *life) withdraw(name string) {
	if l.fresh[name] {
		l.must(os.RemoveAll(l.host(l.things[name].path)))
	}
	delete(l.things, name)
	delete(l.fresh, name)
}

// add declares something new, now and then where somebody else's file lies.
func (l *life) add(name string) {
	x := thing{
		app: crashApps[l.r.IntN(2)], path: []string{"/etc/", "/srv/"}[l.r.IntN(2)] + name,
		content: fmt.Sprintf("content of %s", name), mode: "0644", file: l.r.IntN(5),
	}
	switch l.r.IntN(6) {
	case 0:
		x.kind, x.mode = "Directory", "0755"
	case 1:
		x.kind, x.content = "Symlink", "/nowhere/"+name
	default:
		x.kind = "File"
		x.hook = []string{"", "check: syntax\n  onChange: reload\n  ", "onChange: reload\n  "}[l.r.IntN(3)]
		if l.r.IntN(2) == 0 {
			l.must(os.WriteFile(l.host(x.path), []byte("was here before"), 0o600))
		}
	}
	l.things[name], l.fresh[name] = x, true
	l.steps = append(l.steps, fmt.Sprintf("add %s %+v", name, x))
}

func (l *life) commit() {
	files := map[string]gittest.File{}
	for _, name := range slices.Sorted(maps.Keys(l.things)) {
		x := l.things[name]
		body := ""
		switch x.kind {
		case "File":
			body = fmt.Sprintf("%smode: %q\n  content: %q", x.hook, x.mode, x.content)
		case "Directory":
			body = fmt.Sprintf("mode: %q", x.mode)
		case "Symlink":
			body = fmt.Sprintf("target: %q", x.content)
		}
		path := fmt.Sprintf("%s/%d.yaml", x.app, x.file)
		f := files[path]
		f.Data += fmt.Sprintf("---\napiVersion: host.gitopsd.io/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec:\n  path: %s\n  %s\n", x.kind, name, x.path, body)
		files[path] = f
	}
	clear(l.fresh)
	l.steps = append(l.steps, "commit "+l.repo.Commit("main", files))
}

// touch lets a hand change something that is declared.
func (l *life) touch() {
	names := slices.Sorted(maps.Keys(l.things))
	x := l.things[names[l.r.IntN(len(names))]]
	p := l.host(x.path)
	info, err := os.Lstat(p)
	if err != nil || x.kind != "File" || !info.Mode().IsRegular() {
		return
	}
	l.steps = append(l.steps, "touch "+x.path)
	switch l.r.IntN(3) {
	case 0:
		l.must(os.Remove(p))
	case 1:
		l.must(os.WriteFile(p, []byte("by hand"), 0o644))
	case 2:
		l.must(os.Chmod(p, 0o604))
	}
}
