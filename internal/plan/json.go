package plan

import (
	"encoding/json"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// The JSON form of a plan. Names are stable: fields are added, never renamed.
//
//	application  name
//	empty        nothing to write or record, nothing blocked, and nothing unknown
//	unknown      why it is not known whether anything else differs; left out when it is
//	counts       as in Counts
//	changes      in the order of execution
//	gates        kind, message and changes (key, action, want, removes)
//
// Keys are in the form of Key.String, origins as "path:line". Secrets are
// masked, and of an object only its changed fields appear.
type planJSON struct {
	Application string       `json:"application"`
	Empty       bool         `json:"empty"`
	Unknown     string       `json:"unknown,omitempty"`
	Counts      Counts       `json:"counts"`
	Changes     []changeJSON `json:"changes"`
	Gates       []gateJSON   `json:"gates"`
}

type changeJSON struct {
	Key          string      `json:"key"`
	Action       Action      `json:"action"`
	Cause        Cause       `json:"cause"`
	Fields       []fieldJSON `json:"fields,omitempty"`
	Reported     []fieldJSON `json:"reported,omitempty"`
	Removes      []string    `json:"removes,omitempty"`
	Adopting     bool        `json:"adopting,omitempty"`
	Unfinished   string      `json:"unfinished,omitempty"`
	Record       bool        `json:"record,omitempty"`
	TransferFrom string      `json:"transferFrom,omitempty"`
	Locator      string      `json:"locator,omitempty"`
	Wave         int         `json:"wave"`
	Depth        int         `json:"depth"`
	DependsOn    []string    `json:"dependsOn,omitempty"`
	Origin       string      `json:"origin,omitempty"`
	Blocked      string      `json:"blocked,omitempty"`
}

type fieldJSON struct {
	Path   manifest.Pointer `json:"path"`
	Op     FieldOp          `json:"op"`
	Before json.RawMessage  `json:"before,omitempty"` // absent for add
	After  json.RawMessage  `json:"after,omitempty"`  // absent for remove
	Cause  Cause            `json:"cause"`
}

type gateJSON struct {
	Kind    GateKind    `json:"kind"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
	Changes []gatedJSON `json:"changes"`
}

type gatedJSON struct {
	Key    string          `json:"key"`
	Action Action          `json:"action"`
	Want   manifest.Digest `json:"want,omitempty"`
	// Removes is the address of something undeclared that goes besides.
	Removes string `json:"removes,omitempty"`
}

// MarshalJSON writes the documented form of a plan, with secrets masked and
// without object bodies.
func (p *Plan) MarshalJSON() ([]byte, error) {
	out := planJSON{
		Application: p.Application, Empty: p.Empty(), Unknown: p.Unknown, Counts: p.Counts,
		Changes: []changeJSON{}, Gates: []gateJSON{},
	}
	for i := range p.Changes {
		out.Changes = append(out.Changes, p.Changes[i].json())
	}
	for _, g := range p.Gates {
		j := gateJSON{Kind: g.Kind, Message: g.Message, Hint: g.Hint, Changes: []gatedJSON{}}
		for _, c := range g.Changes {
			j.Changes = append(j.Changes, gatedJSON{Key: c.Key.String(), Action: c.Action, Want: c.Want, Removes: c.Removes})
		}
		out.Gates = append(out.Gates, j)
	}
	return json.Marshal(out)
}

func (c *Change) json() changeJSON {
	j := changeJSON{
		Key: c.Key.String(), Action: c.Action, Cause: c.Cause,
		Fields: fieldsJSON(c.Fields), Reported: fieldsJSON(c.Reported), Removes: c.Removes,
		Adopting: c.Adopting, Unfinished: c.Unfinished, Record: c.Record, Locator: c.Entry.Locator,
		Wave: c.Wave, Depth: c.Depth, Origin: c.Origin.String(), Blocked: c.Blocked,
	}
	if c.TransferFrom != nil {
		j.TransferFrom = c.TransferFrom.String()
	}
	for _, k := range c.DependsOn {
		j.DependsOn = append(j.DependsOn, k.String())
	}
	return j
}

func fieldsJSON(fields []FieldChange) []fieldJSON {
	var out []fieldJSON
	for _, f := range fields {
		j := fieldJSON{Path: f.Path, Op: f.Op, Cause: f.Cause}
		if f.Op != FieldAdd {
			j.Before = manifest.Canonical(f.Before)
		}
		if f.Op != FieldRemove && f.Path != "" {
			j.After = manifest.Canonical(f.After)
		}
		out = append(out, j)
	}
	return out
}
