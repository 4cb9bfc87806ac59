package api

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
)

// codes maps the errors of the backend to the stable codes of the API, first
// match first.
var codes = []struct {
	err  error
	code connect.Code
}{
	{reconciler.ErrUnknownApplication, connect.CodeNotFound},
	{reconciler.ErrUnknownObject, connect.CodeNotFound},
	{reconciler.ErrAmbiguous, connect.CodeNotFound},
	{reconciler.ErrPrecondition, connect.CodeFailedPrecondition},
	{reconciler.ErrInvalid, connect.CodeInvalidArgument},
	{sources.ErrUnavailable, connect.CodeUnavailable},
	{context.Canceled, connect.CodeCanceled},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
}

// toCode gives an error of the backend its code, and sets what to do about it
// apart as a detail. What the table does not know is internal. Nil stays nil.
func toCode(err error) error {
	if err == nil {
		return nil
	}
	var coded *connect.Error
	if errors.As(err, &coded) {
		return err
	}
	code := connect.CodeInternal
	for _, c := range codes {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	var known *reconciler.HintError
	if !errors.As(err, &known) {
		return connect.NewError(code, err)
	}
	return hinted(code, errors.New(strings.TrimSuffix(err.Error(), "; "+known.Hint)), known.Hint)
}

// hinted is an error with what to do about it.
func hinted(code connect.Code, err error, hint string) error {
	out := connect.NewError(code, err)
	if detail, err := connect.NewErrorDetail(&pb.ErrorHint{Hint: replaced(hint)}); err == nil {
		out.AddDetail(detail)
	}
	return out
}

// HintOf returns what the daemon says is to be done about an error that it
// answered with, or "".
func HintOf(err error) string {
	var fromServer *connect.Error
	if !errors.As(err, &fromServer) {
		return ""
	}
	for _, detail := range fromServer.Details() {
		if value, err := detail.Value(); err == nil {
			if hint, ok := value.(*pb.ErrorHint); ok {
				return hint.Hint
			}
		}
	}
	return ""
}
