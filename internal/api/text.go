package api

import (
	"context"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// validText replaces bytes that are no UTF-8 in every string of a message.
// Commit messages and server errors may hold them, and one such string would
// make the whole answer impossible to send.
func validText(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				validText(v.List().Get(i).Message())
			}
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				if s := v.List().Get(i).String(); !utf8.ValidString(s) {
					v.List().Set(i, protoreflect.ValueOfString(replaced(s)))
				}
			}
		case fd.Kind() == protoreflect.MessageKind:
			validText(v.Message())
		case fd.Kind() == protoreflect.StringKind && !utf8.ValidString(v.String()):
			m.Set(fd, protoreflect.ValueOfString(replaced(v.String())))
		}
		return true
	})
}

func replaced(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }

// cleaner is the interceptor that makes every answer sendable.
type cleaner struct{}

func (cleaner) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		if m, ok := res.Any().(proto.Message); ok {
			validText(m.ProtoReflect())
		}
		return res, nil
	}
}

func (cleaner) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, cleaningConn{conn})
	}
}

type cleaningConn struct{ connect.StreamingHandlerConn }

func (c cleaningConn) Send(msg any) error {
	if m, ok := msg.(proto.Message); ok {
		validText(m.ProtoReflect())
	}
	return c.StreamingHandlerConn.Send(msg)
}

func (cleaner) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
