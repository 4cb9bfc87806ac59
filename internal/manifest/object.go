package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
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

// New makes an object of content, which it takes over: the caller must not
// touch it again. Content may share maps with another object's. It fails when the
// identity is missing or malformed, or when a value is outside the model; the
// error names the field and what to do.
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
