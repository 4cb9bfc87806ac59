package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Hash is the SHA-256 of an object's canonical form, in hexadecimal. It is a
// cache key inside the process; what is stored or shown uses Sealer.Digest,
// because a plain hash of a short secret can be guessed.
type Hash string

// Object is one desired or live object in the Kubernetes shape: apiVersion,
// kind, metadata, spec. It is immutable and safe for concurrent use; who wants
// a different one makes a new one.
type Object struct {
	id         ID
	apiVersion string
	content    map[string]any
	origin     Origin
	hash       Hash
}

var (
	nameRE      = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.:@]{0,251}[A-Za-z0-9])?$`)
	kindRE      = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}$`)
	groupRE     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	versionRE   = regexp.MustCompile(`^[a-z][a-z0-9]{0,62}$`)
	namespaceRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// New makes an object of content, which it takes over: the caller must not
// touch it again. Content may share maps with another object's. It fails when the identity is missing or malformed, or when a
// value is outside the model.
func New(content map[string]any, origin Origin) (*Object, error) {
	if _, _, err := normalize(content, ""); err != nil {
		return nil, err
	}
	o := &Object{content: content, origin: origin}
	if err := o.identify(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	writeCanonical(&b, content, byDigest)
	sum := sha256.Sum256(b.Bytes())
	o.hash = Hash(hex.EncodeToString(sum[:]))
	return o, nil
}

// At returns the same object with another origin. Content and hash are shared.
func (o *Object) At(origin Origin) *Object {
	c := *o
	c.origin = origin
	return &c
}

// String returns the identity and the origin. It shows no content, so that an
// object may stand in any message.
func (o *Object) String() string {
	if o.origin == (Origin{}) {
		return o.id.String()
	}
	return o.id.String() + " (" + o.origin.String() + ")"
}

// Format writes String for every verb.
func (o *Object) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(o.String())) }

func (o *Object) identify() error {
	var ok bool
	if o.apiVersion, ok = o.content["apiVersion"].(string); !ok {
		return errors.New("apiVersion is missing or not a string")
	}
	group, version, found := strings.Cut(o.apiVersion, "/")
	if !found {
		group, version = "", o.apiVersion
	}
	if (found && !groupRE.MatchString(group)) || !versionRE.MatchString(version) {
		return fmt.Errorf("apiVersion %q: want group/version, as in host.gitopsd.io/v1alpha1", o.apiVersion)
	}
	kind, ok := o.content["kind"].(string)
	if !ok || !kindRE.MatchString(kind) {
		return errors.New("kind is missing or not a name in CamelCase")
	}
	meta, ok := o.content["metadata"].(map[string]any)
	if !ok {
		return errors.New("metadata is missing or not a mapping")
	}
	name, ok := meta["name"].(string)
	if _, present := meta["name"]; present && !ok {
		return errors.New("metadata.name is not text; put it in quotes")
	}
	if !nameRE.MatchString(name) {
		return errors.New("metadata.name is missing or not a name (letters, digits and -_.:@, at most 253)")
	}
	namespace := ""
	if v, present := meta["namespace"]; present {
		if namespace, ok = v.(string); !ok || !namespaceRE.MatchString(namespace) {
			return errors.New("metadata.namespace is not a DNS label")
		}
	}
	for _, field := range []string{"labels", "annotations"} {
		if err := stringMap(meta, field); err != nil {
			return err
		}
	}
	o.id = ID{Group: group, Kind: kind, Namespace: namespace, Name: name}
	return nil
}

func stringMap(meta map[string]any, field string) error {
	v, present := meta[field]
	if !present || v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("metadata.%s is not a mapping", field)
	}
	for k, e := range m {
		if _, ok := e.(string); !ok {
			return fmt.Errorf("metadata.%s[%q] is not a string; quote it", field, k)
		}
	}
	return nil
}

// ID returns the identity.
func (o *Object) ID() ID { return o.id }

// APIVersion returns "group/version" as it was written.
func (o *Object) APIVersion() string { return o.apiVersion }

// Origin returns where the object was written; zero for a live object.
func (o *Object) Origin() Origin { return o.origin }

// Hash returns the hash of the canonical form. Origin is not part of it.
func (o *Object) Hash() Hash { return o.hash }

// Content returns the object's content. It is shared and must not be modified.
func (o *Object) Content() map[string]any { return o.content }

// Spec returns the mapping under "spec", or nil. It must not be modified.
func (o *Object) Spec() map[string]any {
	spec, _ := o.content["spec"].(map[string]any)
	return spec
}

// Labels returns a copy of metadata.labels.
func (o *Object) Labels() map[string]string { return o.strings("labels") }

// Annotations returns a copy of metadata.annotations.
func (o *Object) Annotations() map[string]string { return o.strings("annotations") }

// Annotation returns one annotation, or "".
func (o *Object) Annotation(key string) string {
	v, _ := Lookup(o.content, Pointer("/metadata/annotations").Child(key))
	s, _ := v.(string)
	return s
}

func (o *Object) strings(field string) map[string]string {
	v, _ := Lookup(o.content, Pointer("/metadata").Child(field))
	m, _ := v.(map[string]any)
	out := make(map[string]string, len(m))
	for k := range maps.Keys(m) {
		out[k], _ = m[k].(string)
	}
	return out
}

// MarshalJSON writes the canonical form with secrets masked.
func (o *Object) MarshalJSON() ([]byte, error) { return Canonical(o.content), nil }
