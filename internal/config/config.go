// Package config holds the configuration of the daemon: the kinds Source,
// PolicySet, Target and Application, read strictly, with defaults filled in and
// references checked. The section of a target stays undecoded, because only its
// applier knows what belongs there. The JSON Schemas under docs/schema and the
// tables of docs/configuration.md are made from the types of this package.
package config

import (
	"encoding/json"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/sources"
)

// APIVersion is the apiVersion of every configuration object.
const APIVersion = "gitopsd.io/v1alpha1"

// The kinds of configuration objects.
const (
	KindSource      = "Source"
	KindPolicySet   = "PolicySet"
	KindTarget      = "Target"
	KindApplication = "Application"
)

// Config is one valid configuration. Every list is sorted by name. It is
// immutable and safe for concurrent use.
type Config struct {
	Sources      []Source
	PolicySets   []PolicySet
	Targets      []Target
	Applications []Application
	// Digest names the content: equal digests mean the same configuration, with
	// defaults filled in. It says nothing about the files and credentials that
	// the configuration refers to.
	Digest string
}

// Meta is what every object has.
type Meta struct {
	Name   string
	Origin manifest.Origin
	// Digest names the object's spec with defaults filled in.
	Digest string
}

// Source declares a repository or a directory and which revision of it to follow.
type Source struct {
	Meta
	Spec SourceSpec
}

// SourceSpec is the spec of a Source.
type SourceSpec struct {
	Git *GitSource `json:"git,omitempty" oneof:"1" doc:"A Git repository and the ref to follow."`
	Dir *DirSource `json:"dir,omitempty" oneof:"1" doc:"A directory on this host, without commits."`
}

// GitSource is a Git repository, the ref to follow, and its trust.
type GitSource struct {
	URL          string      `json:"url" required:"true" doc:"Address of the repository: https, http, ssh or file, or user@host:path. It holds no user name for http and never a password."`
	Branch       string      `json:"branch,omitempty" oneof:"1" doc:"Follow this branch."`
	Tag          string      `json:"tag,omitempty" oneof:"1" doc:"Follow this tag."`
	Commit       string      `json:"commit,omitempty" oneof:"1" pattern:"^[0-9a-f]{40}$" example:"8843d7f92416211de9ebb963ff4ce28125932878" doc:"Stay at this commit: 40 hexadecimal digits."`
	Interval     Duration    `json:"interval" default:"30s" doc:"Time between two polls, varied by a tenth."`
	Timeout      Duration    `json:"timeout" default:"60s" doc:"Longest time of one poll or fetch."`
	Auth         *GitAuth    `json:"auth,omitempty" doc:"How to log in. Without it nothing is sent."`
	CAFile       string      `json:"caFile,omitempty" path:"true" doc:"PEM file of certificates to trust instead of the system's."`
	ClientCert   *ClientCert `json:"clientCert,omitempty" doc:"Certificate to show to the server."`
	Proxy        string      `json:"proxy,omitempty" doc:"Proxy for http and https: an http, https or socks5 URL without a password."`
	AllowRewrite bool        `json:"allowRewrite" default:"false" doc:"Follow a branch that was rewritten. Without it a rewrite is refused until it is accepted once with gitopsd accept-history."`
	Limits       GitLimits   `json:"limits" doc:"What a fetch may cost. One that would cost more is refused, and the last good revision stays."`
}

// GitLimits bound what a repository can do to the host; see git.Limits.
type GitLimits struct {
	ObjectMiB   int64 `json:"objectMiB" default:"100" min:"1" doc:"Largest file of the repository, unpacked."`
	PackMiB     int64 `json:"packMiB" default:"2048" min:"1" doc:"Most that one fetch transfers."`
	UnpackedMiB int64 `json:"unpackedMiB" default:"16384" min:"1" doc:"Most that one fetch unpacks to."`
	MemoryMiB   int64 `json:"memoryMiB" default:"512" min:"128" doc:"Memory of the process that fetches; it is ended when it needs more."`
}

// Ref returns the ref to follow.
func (g *GitSource) Ref() sources.Ref {
	return sources.Ref{Branch: g.Branch, Tag: g.Tag, Commit: g.Commit}
}

// GitAuth is one way to log in.
type GitAuth struct {
	Basic  *BasicAuth  `json:"basic,omitempty" oneof:"1" doc:"User name and password, for https."`
	Bearer *BearerAuth `json:"bearer,omitempty" oneof:"1" doc:"A token in the Authorization header, for https."`
	SSH    *SSHAuth    `json:"ssh,omitempty" oneof:"1" doc:"A key, for ssh."`
}

// BasicAuth is a user name and a password.
type BasicAuth struct {
	Username     string    `json:"username" required:"true" doc:"User name; many servers take any when the password is a token."`
	PasswordFrom SecretRef `json:"passwordFrom" required:"true" doc:"Where the password is."`
}

// BearerAuth is a token.
type BearerAuth struct {
	TokenFrom SecretRef `json:"tokenFrom" required:"true" doc:"Where the token is."`
}

// SSHAuth is a key, from a secret or from the agent, and the hosts it is shown to.
type SSHAuth struct {
	KeyFrom        *SecretRef `json:"keyFrom,omitempty" oneof:"1" doc:"Where the private key is, in PEM or OpenSSH form."`
	Agent          *bool      `json:"agent,omitempty" oneof:"1" const:"true" doc:"Use the agent that SSH_AUTH_SOCK names."`
	PassphraseFrom *SecretRef `json:"passphraseFrom,omitempty" doc:"Where the passphrase of the key is."`
	KnownHostsFile string     `json:"knownHostsFile,omitempty" path:"true" doc:"Host keys to trust, in the form of known_hosts. Without it those of the user and the system are used. A host that is in none is refused."`
}

// ClientCert is a certificate and its key.
type ClientCert struct {
	CertFile string `json:"certFile" required:"true" path:"true" doc:"PEM file of the certificate."`
	KeyFile  string `json:"keyFile" required:"true" path:"true" doc:"PEM file of the private key."`
}

// SecretRef says where a secret is. The secret itself never stands in the
// configuration; it is read each time it is used, so that it may be renewed.
type SecretRef struct {
	Env        string `json:"env,omitempty" oneof:"1" pattern:"^[A-Za-z_][A-Za-z0-9_]*$" example:"GIT_TOKEN" doc:"Name of an environment variable of the daemon."`
	File       string `json:"file,omitempty" oneof:"1" path:"true" doc:"A file; one newline at its end is not part of the secret."`
	Credential string `json:"credential,omitempty" oneof:"1" pattern:"^[A-Za-z0-9][-A-Za-z0-9_.]*$" example:"git-token" doc:"Name of a systemd credential (LoadCredential=)."`
}

// DirSource is a directory on this host.
type DirSource struct {
	Path   string   `json:"path" required:"true" path:"true" doc:"The directory."`
	Settle Duration `json:"settle" default:"500ms" doc:"How long nothing may have changed before a change is taken up, so that a copy under way is not read."`
}

// PolicySet declares Rego modules and data that judge objects and changes.
type PolicySet struct {
	Meta
	Spec PolicySetSpec
}

// PolicySetSpec is the spec of a PolicySet.
type PolicySetSpec struct {
	Dir           string         `json:"dir,omitempty" oneof:"1" path:"true" doc:"A directory on this host with .rego, .json and .yaml files."`
	Source        *PolicySource  `json:"source,omitempty" oneof:"1" doc:"A directory of a Source other than the one that is judged."`
	Library       []string       `json:"library,omitempty" oneof:"also" minItems:"1" doc:"Names of policies that come with gitopsd. They judge alone or beside those of dir or source, whatever namespaces says."`
	Namespaces    []string       `json:"namespaces,omitempty" doc:"Rego packages whose deny, violation and warn rules judge objects. Default: every package but gitopsd.* and tests. Package gitopsd.change always judges changes."`
	Data          map[string]any `json:"data,omitempty" doc:"Values that rules read under data."`
	AllowBuiltins []string       `json:"allowBuiltins,omitempty" doc:"Rego built-in functions to allow although their answer may change from call to call."`
	Timeout       Duration       `json:"timeout" default:"5s" doc:"Longest time of one evaluation. What takes longer is denied."`
}

// PolicySource is a directory in a source.
type PolicySource struct {
	Name string `json:"name" required:"true" doc:"Name of the Source."`
	Path string `json:"path" default:"." tree:"true" doc:"Directory in it."`
}

// Target declares one configured applier.
type Target struct {
	Meta
	// Kind is the one key of the spec, as in "file".
	Kind string
	// Config is the value under that key, for the applier to decode.
	Config json.RawMessage
}

// Application declares one path of one source that is kept in step with targets.
type Application struct {
	Meta
	// RenamedFrom is the value of AnnotationRenamedFrom; "" when there is none.
	RenamedFrom string
	Spec        ApplicationSpec
}

// AnnotationRenamedFrom names, on an Application, the name that it had before. What
// that application owns and remembers is this one's then, and nothing is deleted
// or written because of the new name.
const AnnotationRenamedFrom = "gitopsd.io/renamed-from"

// ApplicationSpec is the spec of an Application.
type ApplicationSpec struct {
	Source         string         `json:"source" required:"true" doc:"Name of the Source."`
	Path           string         `json:"path" default:"." tree:"true" doc:"Directory or file in the source."`
	Targets        []Route        `json:"targets" required:"true" minItems:"1" doc:"Where objects go. Each object must match exactly one of them."`
	Policies       []string       `json:"policies,omitempty" doc:"Names of PolicySets; all must allow."`
	Variables      map[string]any `json:"variables,omitempty" doc:"Values that templates may use. Nothing else is defined: neither the environment nor the host."`
	Prune          Prune          `json:"prune" doc:"What happens to objects that are no longer in the source."`
	Adopt          string         `json:"adopt" default:"identical" enum:"never,identical,always" doc:"Whether to take over an object that is there already: never, when it is as desired, or always (what was there is kept first)."`
	Drift          Drift          `json:"drift" doc:"What to do about live fields that moved without a commit."`
	DependsOn      []string       `json:"dependsOn,omitempty" doc:"Applications that must be synced and healthy first."`
	Interval       Duration       `json:"interval" default:"5m" doc:"Time between two complete looks at all objects."`
	StaleAfter     Duration       `json:"staleAfter" doc:"Age of the last complete look past which the status says Stale. Default: three intervals."`
	Retry          Retry          `json:"retry" doc:"How failed objects are tried again."`
	Suspend        bool           `json:"suspend" default:"false" doc:"Stop the application: nothing is applied, nothing is healed."`
	Protect        []string       `json:"protect,omitempty" kind:"one" doc:"Kinds that are never deleted without an approval. Default: Namespace, PersistentVolume, PersistentVolumeClaim and apiextensions.k8s.io/CustomResourceDefinition; a list replaces it."`
	DeletionPolicy string         `json:"deletionPolicy" default:"Orphan" enum:"Orphan,Delete" doc:"What becomes of the objects when the application is taken out of the configuration: Orphan leaves and lists them, Delete deletes them, through prune budget and approval. What counts is what stood there before it was taken out."`
	Approval       Approval       `json:"approval" doc:"Who may approve what is held."`
	Contention     Contention     `json:"contention" doc:"When somebody else keeps writing a field."`
}

// Route is one target of an application and the objects that go there. Empty
// lists match everything.
type Route struct {
	Name       string            `json:"name" required:"true" doc:"Name of the Target."`
	Kinds      []string          `json:"kinds,omitempty" kind:"many" doc:"Kinds to send there, as in host.gitopsd.io/File, Namespace (core group) or apps/*."`
	Namespaces []string          `json:"namespaces,omitempty" doc:"Namespaces to send there."`
	Labels     map[string]string `json:"labels,omitempty" doc:"Labels that an object must have."`
}

// Prune limits deletes.
type Prune struct {
	Enabled    bool  `json:"enabled" default:"true" doc:"Delete objects that are no longer in the source. When false they are listed and stay."`
	MaxCount   int64 `json:"maxCount" default:"10" min:"-1" doc:"More deletes than this in one round need an approval; -1 means no limit."`
	MaxPercent int64 `json:"maxPercent" default:"20" min:"-1" max:"100" doc:"More deletes than this part of the application's objects need an approval; -1 means no limit."`
}

// Drift says what to do about live fields that moved by themselves.
type Drift struct {
	Mode  string      `json:"mode" default:"heal" enum:"heal,report,ignore" doc:"heal writes the desired value again, report only shows the difference, ignore does not even show it."`
	Rules []DriftRule `json:"rules,omitempty" doc:"Exceptions; the last one that matches wins."`
}

// DriftRule is an exception for fields.
type DriftRule struct {
	Kind string `json:"kind,omitempty" kind:"one" doc:"Kind it is about. Default: all."`
	Path string `json:"path,omitempty" pattern:"^(/([^~/]|~[01])*)+$" example:"/spec/replicas" doc:"JSON pointer to a field; the rule holds for everything below it. Default: all fields."`
	Mode string `json:"mode" required:"true" enum:"heal,report,ignore" doc:"As drift.mode."`
}

// Approval says who may approve what is held.
type Approval struct {
	AllowAuthor bool `json:"allowAuthor" default:"false" doc:"Let the author of the commit that is held approve it. Otherwise it takes somebody else."`
}

// Retry says how failed objects are tried again.
type Retry struct {
	Max Duration `json:"max" default:"5m" doc:"Longest time between two tries."`
}

// Contention says when a field counts as fought over.
type Contention struct {
	Threshold int64    `json:"threshold" default:"3" min:"1" doc:"So many heals of one field within the window are a fight; one that failed does not count."`
	Window    Duration `json:"window" default:"10m" doc:"The time in which heals are counted."`
	Cooldown  Duration `json:"cooldown" default:"30m" doc:"So long the field is left alone and shown."`
}

// Duration is a length of time, written as Go does: 500ms, 30s, 1h30m.
type Duration time.Duration

// String returns the form that is read back.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// DefaultProtect returns the kinds that are protected unless the application
// says otherwise: deleting one takes others along that were never planned.
func DefaultProtect() []string {
	return []string{
		"Namespace", "PersistentVolume", "PersistentVolumeClaim",
		"apiextensions.k8s.io/CustomResourceDefinition",
	}
}

// ParseKind reads the form of Protect and DriftRule.Kind.
func ParseKind(s string) manifest.GroupKind {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return manifest.GroupKind{Group: s[:i], Kind: s[i+1:]}
		}
	}
	return manifest.GroupKind{Kind: s}
}
