package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// references checks every name that one object uses for another.
func (l *loader) references() {
	names := map[string][]string{}
	for subject := range l.seen {
		kind, name, _ := strings.Cut(subject, " ")
		names[kind] = append(names[kind], name)
	}
	for i := range l.config.PolicySets {
		p := &l.config.PolicySets[i]
		if p.Spec.Source != nil {
			l.refer(names, p.Meta, KindPolicySet, "/spec/source/name", KindSource, p.Spec.Source.Name)
		}
	}
	for i := range l.config.Applications {
		a := &l.config.Applications[i]
		l.refer(names, a.Meta, KindApplication, "/spec/source", KindSource, a.Spec.Source)
		for j, t := range a.Spec.Targets {
			l.refer(names, a.Meta, KindApplication, item("/spec/targets", j).Child("name"), KindTarget, t.Name)
		}
		for j, p := range a.Spec.Policies {
			if l.refer(names, a.Meta, KindApplication, item("/spec/policies", j), KindPolicySet, p) {
				l.ownJudge(a, j)
			}
		}
		for j, d := range a.Spec.DependsOn {
			l.refer(names, a.Meta, KindApplication, item("/spec/dependsOn", j), KindApplication, d)
		}
	}
	l.renames()
	l.cycles()
}

// renames refuses a former name that is in use, or that two claim.
func (l *loader) renames() {
	heirs := map[string]string{}
	for _, a := range l.config.Applications {
		from := a.RenamedFrom
		if from == "" {
			continue
		}
		at := manifest.Pointer("/metadata/annotations").Child(AnnotationRenamedFrom)
		if origin, used := l.seen[KindApplication+" "+from]; used {
			l.report(a.Origin, KindApplication+" "+a.Name, fieldProblem{at, "names application " + strconv.Quote(from) + ", which is still declared at " + origin.String(), "remove that one, or this annotation"})
		} else if heir := heirs[from]; heir != "" {
			l.report(a.Origin, KindApplication+" "+a.Name, fieldProblem{at, "names " + strconv.Quote(from) + ", which application " + heir + " was renamed from too", "keep one of the annotations"})
		}
		heirs[from] = a.Name
	}
}

func item(at manifest.Pointer, i int) manifest.Pointer { return at.Child(strconv.Itoa(i)) }

// refer reports whether name is declared. The empty name has been reported already.
func (l *loader) refer(names map[string][]string, m Meta, fromKind string, at manifest.Pointer, kind, name string) bool {
	if name == "" || slices.Contains(names[kind], name) {
		return name != ""
	}
	hint := didYouMean(name, names[kind])
	if hint == "" {
		hint = "declare one"
	}
	l.report(m.Origin, fromKind+" "+m.Name, fieldProblem{at, "there is no " + kind + " " + strconv.Quote(name), hint})
	return false
}

// ownJudge refuses a policy set that is read from where the application is: a
// commit would bring its own policy along.
func (l *loader) ownJudge(a *Application, i int) {
	j := slices.IndexFunc(l.config.PolicySets, func(p PolicySet) bool { return p.Name == a.Spec.Policies[i] })
	if j < 0 || l.config.PolicySets[j].Spec.Source == nil {
		return
	}
	judge, judged := l.source(l.config.PolicySets[j].Spec.Source.Name), l.source(a.Spec.Source)
	if judge == nil || judged == nil || !samePlace(judge, judged) {
		return
	}
	l.report(a.Origin, KindApplication+" "+a.Name, fieldProblem{item("/spec/policies", i),
		"reads its rules from the source that it judges, so a commit could weaken the policy it is judged by",
		"keep the policy in another repository, on a protected branch, or pin its source to a commit"})
}

func (l *loader) source(name string) *SourceSpec {
	for i := range l.config.Sources {
		if l.config.Sources[i].Name == name {
			return &l.config.Sources[i].Spec
		}
	}
	return nil
}

// samePlace reports whether a change of b is a change of a. A pinned commit
// does not change.
func samePlace(a, b *SourceSpec) bool {
	switch {
	case a.Git != nil && b.Git != nil:
		return a.Git.URL == b.Git.URL && a.Git.Ref() == b.Git.Ref() && a.Git.Commit == ""
	case a.Dir != nil && b.Dir != nil:
		return a.Dir.Path == b.Dir.Path
	default:
		return false
	}
}

// cycles reports each circle of dependsOn once, at its first application by name.
func (l *loader) cycles() {
	apps := map[string]*Application{}
	for i := range l.config.Applications {
		apps[l.config.Applications[i].Name] = &l.config.Applications[i]
	}
	done := map[string]bool{}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if i := slices.Index(path, name); i >= 0 {
			circle := append(path[i:], name)
			l.report(apps[name].Origin, KindApplication+" "+name, fieldProblem{"/spec/dependsOn",
				"is a circle: " + strings.Join(circle, " -> "), "remove one of them"})
			return
		}
		if done[name] || apps[name] == nil {
			return
		}
		for _, next := range apps[name].Spec.DependsOn {
			visit(next, append(slices.Clone(path), name))
		}
		done[name] = true
	}
	names := make([]string, 0, len(apps))
	for name := range apps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		visit(name, nil)
	}
}
