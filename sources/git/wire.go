package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/gitopsd/gitopsd/sources"
)

// transport is one way to a repository. The protocol is git's version 0, spoken
// here directly: go-git's own transports are registered process-wide, cannot be
// cut by a context, and read the user's ssh configuration.
type transport interface {
	// open makes the one request for refs. Everything ends with ctx.
	open(ctx context.Context) (session, error)
	// close drops idle connections.
	close()
}

// session is a server that has advertised its refs and waits.
type session interface {
	advertised() *packp.AdvRefs
	// pack writes to w a pack with what the wants lead to and the haves do not.
	pack(ctx context.Context, req packRequest, w io.Writer) error
	close()
}

type packRequest struct {
	wants, haves []plumbing.Hash
	// has answers for the whole mirror, for transports that can ask.
	has func(plumbing.Hash) bool
	// limits are for transports that unpack objects themselves.
	limits Limits
}

const (
	maxAdvertised = 64 << 20 // bytes: about half a million refs
	maxTalk       = 4 << 20  // bytes of acknowledgements and progress around one pack
	agent         = "gitopsd"
)

// decodeRefs reads an advertisement. A repository without any commit gives an
// empty one. Names that git would not let exist make the whole answer refused:
// the server is broken or hostile (row A-4).
func decodeRefs(r io.Reader) (*packp.AdvRefs, error) {
	ar := packp.NewAdvRefs()
	in := &io.LimitedReader{R: r, N: maxAdvertised}
	err := ar.Decode(in)
	var line *pktline.ErrorLine
	switch {
	case err == nil:
	case in.N == 0:
		return nil, fmt.Errorf("%w: the server lists more than %d MiB of refs (is the URL that of one repository?)", sources.ErrRefused, maxAdvertised/mib)
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return packp.NewAdvRefs(), nil
	case errors.As(err, &line):
		return nil, fmt.Errorf("%w: the server says: %s", sources.ErrUnavailable, serverText(line.Text))
	default:
		return nil, fmt.Errorf("%w: the answer is not Git's or was cut: %w", sources.ErrUnavailable, printable(err))
	}
	if ar.Head != nil && ar.Head.IsZero() {
		ar.Head = nil
	}
	for _, names := range []map[string]plumbing.Hash{ar.References, ar.Peeled} {
		for name, hash := range names {
			if name == "capabilities^{}" || hash.IsZero() {
				delete(names, name)
				continue
			}
			if err := refFormat(name); err != nil {
				return nil, fmt.Errorf("%w: the server advertises a ref named %q: %w", sources.ErrRefused, serverText(name), err)
			}
		}
	}
	return ar, nil
}

// encodeRequest writes what upload-pack wants to hear, in one go: with a single
// "done" and no flush between, the answer has exactly one final ACK or NAK.
func encodeRequest(caps *capability.List, req packRequest) []byte {
	var b bytes.Buffer
	e := pktline.NewEncoder(&b)
	asked := " agent=" + agent
	for _, c := range []capability.Capability{capability.OFSDelta, capability.NoProgress, capability.MultiACKDetailed} {
		if caps.Supports(c) {
			asked += " " + c.String()
		}
	}
	if band := bandOf(caps); band != "" {
		asked += " " + band
	}
	for _, h := range req.wants {
		e.Encodef("want %s%s\n", h, asked)
		asked = ""
	}
	e.Flush()
	for _, h := range req.haves {
		e.Encodef("have %s\n", h)
	}
	e.EncodeString("done\n")
	return b.Bytes()
}

func bandOf(caps *capability.List) string {
	for _, c := range []capability.Capability{capability.Sideband64k, capability.Sideband} {
		if caps.Supports(c) {
			return c.String()
		}
	}
	return ""
}

// decodePack reads the answer to encodeRequest and copies the pack to w.
func decodePack(caps *capability.List, r io.Reader, w io.Writer) error {
	s := pktline.NewScanner(r)
	talk := &bounded{w: io.Discard, left: maxTalk, says: fmt.Errorf("%w: the server talks without end and sends no pack (is it a Git server, and well?)", sources.ErrUnavailable)}
	for {
		if !s.Scan() {
			return scanError(s)
		}
		if err := talk.count(pktHead + len(s.Bytes())); err != nil {
			return err
		}
		line := strings.TrimSpace(string(s.Bytes()))
		if line == "NAK" || strings.HasPrefix(line, "ACK ") && len(strings.Fields(line)) == 2 {
			break
		}
		if !strings.HasPrefix(line, "ACK ") {
			return fmt.Errorf("%w: the server answers %q instead of a pack", sources.ErrUnavailable, serverText(line))
		}
	}
	if bandOf(caps) == "" {
		_, err := io.Copy(w, r)
		return err
	}
	for s.Scan() {
		line := s.Bytes()
		if len(line) == 0 {
			return nil
		}
		if line[0] != 1 || len(line) == 1 {
			if err := talk.count(pktHead + len(line)); err != nil {
				return err
			}
		}
		switch line[0] {
		case 1:
			if _, err := w.Write(line[1:]); err != nil {
				return err
			}
		case 2: // progress
		default:
			return fmt.Errorf("%w: the server says: %s", sources.ErrUnavailable, serverText(string(line[1:])))
		}
	}
	return scanError(s)
}

func scanError(s *pktline.Scanner) error {
	err := s.Err()
	var line *pktline.ErrorLine
	switch {
	case errors.As(err, &line):
		return fmt.Errorf("%w: the server says: %s", sources.ErrUnavailable, serverText(line.Text))
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: the answer was cut: %w", sources.ErrUnavailable, printable(err))
}

// printable returns err fit for one line of a message: a library may quote what
// a server sent.
func printable(err error) error {
	if text := serverText(err.Error()); text != err.Error() {
		return &maskedError{text: text, err: err}
	}
	return err
}

// serverText makes words of a server fit for one line of a message.
func serverText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xfffd {
			return ' '
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// pktHead is the length of a line's length.
const pktHead = 4

// bounded fails a copy that grows beyond its limit.
type bounded struct {
	w    io.Writer
	left int64
	says error // of what is beyond
}

func (b *bounded) count(n int) error {
	if b.left -= int64(n); b.left < 0 {
		return b.says
	}
	return nil
}

func (b *bounded) Write(p []byte) (int, error) {
	if err := b.count(len(p)); err != nil {
		return 0, err
	}
	return b.w.Write(p)
}
