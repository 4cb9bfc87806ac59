package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

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

// toCode gives an error of the backend its code. What the table does not know
// is internal. Nil stays nil.
func toCode(err error) error {
	if err == nil {
		return nil
	}
	var coded *connect.Error
	if errors.As(err, &coded) {
		return err
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return connect.NewError(c.code, err)
		}
	}
	return connect.NewError(connect.CodeInternal, err)
}
