package main

import (
	"context"
	"errors"

	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/audit"
)

// auditLog answers the API from the audit log.
type auditLog struct{ log *audit.Log }

func (a auditLog) Query(ctx context.Context, application, kind string, limit int) ([]api.AuditRecord, error) {
	records, err := a.log.Query(ctx, audit.Filter{Application: application, Kind: kind}, limit)
	if err != nil {
		return nil, err
	}
	out := make([]api.AuditRecord, 0, len(records))
	for _, r := range records {
		out = append(out, api.AuditRecord{
			Seq: r.Seq, At: r.At, Kind: r.Kind, Application: r.Application, Principal: r.Principal,
			Message: r.Message, Data: r.Data, Hash: r.Hash,
		})
	}
	return out, nil
}

func (a auditLog) Verify(ctx context.Context) (api.AuditVerdict, error) {
	n, err := a.log.Verify(ctx)
	if errors.Is(err, audit.ErrBroken) {
		return api.AuditVerdict{Records: uint64(n), Problem: err.Error()}, nil
	}
	if err != nil {
		return api.AuditVerdict{}, err
	}
	_, head, err := a.log.Head(ctx)
	return api.AuditVerdict{Records: uint64(n), Head: head}, err
}
