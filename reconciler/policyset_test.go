package reconciler

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/sources"
)

// swarm is a tree in which every directory holds ten more, without end.
type swarm struct{ sources.Tree }

func (swarm) ReadDir(p string) (out []sources.Entry, err error) {
	for i := range 10 {
		out = append(out, sources.Entry{Path: path.Join(p, fmt.Sprint(i)), Mode: sources.ModeDir})
	}
	if strings.Count(p, "/") > 10 {
		return nil, nil
	}
	return out, nil
}

// a policy set whose trees name each other again and again is refused.
func TestPolicySetOfATreeBomb(t *testing.T) {
	if files, err := ReadPolicies(swarm{}, "policies"); err == nil || !strings.Contains(err.Error(), "policies: more than 100000 files and directories") {
		t.Errorf("%d files, %v", len(files), err)
	}
}
