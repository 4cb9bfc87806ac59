package opa

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// restricted lists the built-ins whose answer depends on something besides
// modules, data and input, and what that is. A policy cannot use one, not even
// as the target of `with`, unless the operator allows it by name. The list is
// that of OPA's own nondeterministic flag, and the two certificate functions
// that compare with the clock unless told otherwise.
var restricted = map[string]string{
	"http.send":              "network",
	"net.lookup_ip_addr":     "network",
	"json.match_schema":      "network, where a schema refers to a URL",
	"json.verify_schema":     "network, where a schema refers to a URL",
	"opa.runtime":            "environment",
	"time.now_ns":            "clock",
	"io.jwt.decode_verify":   "clock",
	"rand.intn":              "random numbers",
	"uuid.rfc4122":           "random numbers",
	"io.jwt.encode_sign":     "random numbers",
	"io.jwt.encode_sign_raw": "random numbers",
	"crypto.x509.parse_and_verify_certificates":              "clock",
	"crypto.x509.parse_and_verify_certificates_with_options": "clock",
}

// Restricted returns the names of the built-ins that Options.AllowBuiltins may
// hold, sorted.
func Restricted() []string { return slices.Sorted(maps.Keys(restricted)) }

// capabilities returns what a policy may use: everything that is a function of
// modules, data and input, and the allowed names.
func capabilities(allow []string) (*ast.Capabilities, error) {
	for _, name := range allow {
		if _, ok := restricted[name]; !ok {
			return nil, fmt.Errorf("allowed built-in %q: not one of those that need permission (%s); remove it from the list",
				name, strings.Join(Restricted(), ", "))
		}
	}
	caps := ast.CapabilitiesForThisVersion()
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		_, known := restricted[b.Name]
		return (known || b.IsNondeterministic()) && !slices.Contains(allow, b.Name)
	})
	// Without a network built-in there is no reason to follow a URL in a schema either.
	if !slices.Contains(allow, "http.send") && !slices.Contains(allow, "net.lookup_ip_addr") {
		caps.AllowNet = []string{}
	}
	return caps, nil
}

// explain turns the errors of the compiler into one text with file:line for
// each, and says of a forbidden built-in what it is and how it could be allowed.
func explain(errs ast.Errors) error {
	errs.Sort()
	lines := make([]string, 0, len(errs))
	for _, e := range errs {
		line := e.Error()
		if _, name, ok := strings.Cut(e.Message, "undefined function "); ok {
			if why, ok := restricted[name]; ok {
				line += fmt.Sprintf(" (%s: a policy may not use it unless the operator allows it by name)", why)
			}
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("compile policy: %s", strings.Join(lines, "\n"))
}
