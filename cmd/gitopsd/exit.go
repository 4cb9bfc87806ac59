package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"github.com/gitopsd/gitopsd/internal/api"
)

// The exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK         = 0
	exitError      = 1 // anything without a code of its own; findings of validate and tests
	exitOutOfSync  = 2 // status --exit-code, diff --exit-code: something differs
	exitStale      = 3 // status --exit-code, diff --exit-code: it is not known whether something differs
	exitNotFound   = 4 // no such application or object
	exitDenied     = 5 // the caller's role does not allow it
	exitNotNow     = 6 // does not fit the state: nothing is held, the set has changed
	exitNoDaemon   = 7 // the daemon cannot be reached
	exitInterrupts = 130
)

// hintError carries what to do about an error.
type hintError struct {
	error
	hint string
}

func (h hintError) Unwrap() error { return h.error }

func hinted(err error, format string, args ...any) error {
	return hintError{err, fmt.Sprintf(format, args...)}
}

// outcome is what an error becomes: an exit code and a hint for errors that
// bring none.
type outcome struct {
	code int
	hint string
}

// outcomes maps the codes of the API.
var outcomes = map[connect.Code]outcome{
	connect.CodeNotFound:           {exitNotFound, "gitopsd status lists the applications, gitopsd get APP the objects of one"},
	connect.CodePermissionDenied:   {exitDenied, "ask who runs the daemon for the role"},
	connect.CodeUnauthenticated:    {exitDenied, "use the Unix socket of the daemon"},
	connect.CodeFailedPrecondition: {exitNotNow, "gitopsd status shows where things stand"},
	connect.CodeInvalidArgument:    {exitError, "--help says what is expected"},
	connect.CodeUnavailable:        {exitError, "the daemon answers, and a source does not: gitopsd doctor says which"},
	connect.CodeDeadlineExceeded:   {exitError, "the daemon is there and was not done in time: try again, with a longer --timeout"},
	connect.CodeResourceExhausted:  {exitError, "the answer is too large; name fewer applications"},
	connect.CodeUnimplemented:      {exitError, "the daemon is of another version than this command; compare with gitopsd version"},
	connect.CodeInternal:           {exitError, "the log of the daemon says more"},
}

// fail reports err and returns the exit code. It is the only place that does.
func (c *cli) fail(err error) int {
	if errors.Is(err, errSilent) {
		return exitError
	}
	code, message, hint := c.explain(err)
	for line := range strings.SplitSeq(strings.TrimRight(message, "\n"), "\n") {
		fmt.Fprintf(c.err, "%s %s\n", c.errPaint(red, "error:"), safe(line))
	}
	if hint != "" {
		fmt.Fprintf(c.err, "%s %s\n", c.errPaint(cyan, "hint:"), safe(hint))
	}
	return code
}

func (c *cli) explain(err error) (code int, message, hint string) {
	code, message = exitError, err.Error()
	var fromServer *connect.Error
	var dial *api.DialError
	switch {
	case errors.As(err, &dial):
		code, hint = exitNoDaemon, dial.Hint
	case errors.Is(err, context.Canceled), connect.CodeOf(err) == connect.CodeCanceled:
		if code, message = exitInterrupts, "interrupted"; c.interrupted != nil && !c.interrupted() { // nobody here ended it
			code, message = exitNoDaemon, "the daemon ended before it answered"
			hint = "see why in its log, and start it again with gitopsd run"
		}
	case errors.As(err, &fromServer):
		o := outcomes[fromServer.Code()]
		message, hint = fromServer.Message(), cmp.Or(api.HintOf(err), o.hint)
		if o.code != 0 {
			code = o.code
		}
	}
	var h hintError
	if errors.As(err, &h) {
		hint = h.hint
	}
	return code, message, hint
}
