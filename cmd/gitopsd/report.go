package main

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/reconciler"
)

// level says how much a finding matters; the words are those of SARIF.
type level string

const (
	levelError   level = "error"
	levelWarning level = "warning"
	levelNote    level = "note"
)

// finding is one thing that validate found.
type finding struct {
	Level       level  `json:"level"`
	Rule        string `json:"rule"` // config, render, route, target, depends, rival, policy, or the policy rule that spoke
	Path        string `json:"path,omitempty"`
	Line        int    `json:"line,omitempty"`
	Application string `json:"application,omitempty"`
	Object      string `json:"object,omitempty"`
	Message     string `json:"message"`
	Hint        string `json:"hint,omitempty"`
	// Details are the further members of what a policy rule returned.
	Details map[string]any `json:"details,omitempty"`
}

// text is the message with the hint.
func (f finding) text() string {
	if f.Hint == "" {
		return f.Message
	}
	return f.Message + "; " + f.Hint
}

// subject names the object and application, as far as there are any.
func (f finding) subject() string {
	return strings.Join(slices.DeleteFunc([]string{f.Application, f.Object}, func(s string) bool { return s == "" }), ": ")
}

type checked struct {
	Application string `json:"application,omitempty"`
	Object      string `json:"object"`
	Path        string `json:"path"`
	Line        int    `json:"line"`
}

// report is the result of one validate.
type report struct {
	Findings []finding `json:"findings"`
	Objects  []checked `json:"objects"`

	checkedConfig *configCounts // when nothing but a configuration was checked
}

// summary is the last line of the text for a program.
type summary struct {
	Configuration *configCounts `json:"configuration,omitempty"`
	Objects       int           `json:"objects"`
	Errors        int           `json:"errors"`
	Warnings      int           `json:"warnings"`
	Notes         int           `json:"notes"`
}

func (r *report) summary() summary {
	return summary{r.checkedConfig, len(r.Objects), r.count(levelError), r.count(levelWarning), r.count(levelNote)}
}

func (r *report) add(f finding) { r.Findings = append(r.Findings, f) }

func (r *report) problem(root, rule, app string, p *manifest.Error) {
	path := p.Path
	if root != "" {
		path = relative(root, path)
	}
	r.add(finding{Level: levelError, Rule: rule, Application: app, Path: path, Line: p.Line, Message: p.Msg, Hint: p.Hint})
}

func (r *report) object(app, root string, o *manifest.Object) {
	r.Objects = append(r.Objects, checked{app, o.ID().String(), relative(root, o.Origin().Path), o.Origin().Line})
}

func (r *report) verdict(l level, app, root string, o *manifest.Object, f policies.Finding) {
	r.add(finding{Level: l, Rule: f.Rule, Application: app, Object: o.ID().String(),
		Path: relative(root, o.Origin().Path), Line: o.Origin().Line, Message: f.Msg, Details: f.Details})
}

// refused reports what the loop would refuse.
func (r *report) refused(root string, problems []reconciler.Problem) {
	for _, p := range problems {
		o := p.Object
		r.add(finding{Level: levelError, Rule: p.Rule, Application: p.Application, Object: o.ID().String(),
			Path: relative(root, o.Origin().Path), Line: p.Line, Message: p.Msg, Hint: p.Hint})
	}
}

func (r *report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Application, b.Application))
	})
}

func (r *report) count(l level) int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

func (r *report) print(c *cli, format string) error {
	switch format {
	case "json":
		if r.Findings == nil {
			r.Findings = []finding{}
		}
		if r.Objects == nil {
			r.Objects = []checked{}
		}
		return printValue(c.out, struct {
			*report
			Summary summary `json:"summary"`
		}{r, r.summary()})
	case "junit":
		return r.junit(c.out)
	case "sarif":
		return printValue(c.out, r.sarif())
	case "github":
		return r.github(c.out)
	default:
		return r.text(c)
	}
}

func printValue(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return printJSON(w, "json", raw)
}

func (r *report) text(c *cli) error {
	for _, f := range r.Findings {
		place := f.Path
		if f.Line > 0 {
			place += ":" + strconv.Itoa(f.Line)
		}
		if place != "" {
			place = safe(place) + ": "
		}
		subject := ""
		if s := f.subject(); s != "" {
			subject = safe(s) + ": "
		}
		col := map[level]color{levelError: red, levelWarning: yellow, levelNote: cyan}[f.Level]
		if _, err := fmt.Fprintf(c.out, "%s%s %s%s [%s]\n", place, c.outPaint(col, string(f.Level)+":"), subject, safe(f.text()), safe(f.Rule)); err != nil {
			return err
		}
	}
	checked := plural(len(r.Objects), "object")
	if r.checkedConfig != nil {
		checked = r.checkedConfig.String()
	}
	_, err := fmt.Fprintf(c.out, "%s, %s, %s\n", checked, plural(r.count(levelError), "error"), plural(r.count(levelWarning), "warning"))
	return err
}

// github writes workflow commands, which GitHub shows at the lines concerned.
func (r *report) github(w io.Writer) error {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	for _, f := range r.Findings {
		command := map[level]string{levelError: "error", levelWarning: "warning", levelNote: "notice"}[f.Level]
		text := f.text()
		if s := f.subject(); s != "" {
			text = s + ": " + text
		}
		line := ""
		if f.Line > 0 {
			line = ",line=" + strconv.Itoa(f.Line)
		}
		if _, err := fmt.Fprintf(w, "::%s file=%s%s,title=%s::%s\n", command, property.Replace(f.Path), line, property.Replace(f.Rule), data.Replace(safe(text))); err != nil {
			return err
		}
	}
	return nil
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name     string         `xml:"name,attr"`
	Class    string         `xml:"classname,attr"`
	File     string         `xml:"file,attr,omitempty"`
	Line     int            `xml:"line,attr,omitempty"`
	Failures []junitFailure `xml:"failure"`
	Output   string         `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
}

// junit writes one test case for each object, and one for each finding that is
// about no object.
func (r *report) junit(w io.Writer) error {
	suite := junitSuite{Name: "gitopsd validate"}
	index := map[[3]string]int{}
	for _, o := range r.Objects {
		index[[3]string{o.Application, o.Object, o.Path}] = len(suite.Cases)
		suite.Cases = append(suite.Cases, junitCase{Name: o.Object, Class: cmp.Or(o.Application, "manifests"), File: o.Path, Line: o.Line})
	}
	for _, f := range r.Findings {
		i, ok := index[[3]string{f.Application, f.Object, f.Path}]
		if !ok {
			i = len(suite.Cases)
			suite.Cases = append(suite.Cases, junitCase{Name: cmp.Or(f.Path, f.Rule), Class: cmp.Or(f.Application, "manifests"), File: f.Path, Line: f.Line})
		}
		if f.Level != levelError {
			suite.Cases[i].Output += safe(f.text()) + "\n"
			continue
		}
		suite.Cases[i].Failures = append(suite.Cases[i].Failures, junitFailure{Type: f.Rule, Message: safe(f.text())})
	}
	suite.Tests = len(suite.Cases)
	for _, c := range suite.Cases {
		if len(c.Failures) > 0 {
			suite.Failures++
		}
	}
	data, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, data)
	return err
}

// sarif returns the report in the Static Analysis Results Interchange Format 2.1.0.
func (r *report) sarif() any {
	type object = map[string]any
	rules, seen, results := []any{}, map[string]bool{}, []any{}
	for _, f := range r.Findings {
		if !seen[f.Rule] {
			seen[f.Rule] = true
			rules = append(rules, object{"id": f.Rule})
		}
		text := f.text()
		if s := f.subject(); s != "" {
			text = s + ": " + text
		}
		result := object{"ruleId": f.Rule, "level": f.Level, "message": object{"text": text}}
		if f.Path != "" {
			place := object{"artifactLocation": object{"uri": f.Path}}
			if f.Line > 0 {
				place["region"] = object{"startLine": f.Line}
			}
			result["locations"] = []any{object{"physicalLocation": place}}
		}
		results = append(results, result)
	}
	return object{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []any{object{
			"tool":    object{"driver": object{"name": "gitopsd", "version": release(), "rules": rules}},
			"results": results,
		}},
	}
}
