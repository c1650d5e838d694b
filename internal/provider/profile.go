// SPDX-License-Identifier: Apache-2.0

// Package provider is what a person's credentials are and where they belong:
// profiles say which variables a service's credentials come in and at which
// endpoints they may be used, the store keeps the values, encrypted, for root or
// their owner alone.
//
// It does not use a credential: the proxy does, outside every container.
package provider

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// Profile is one service, in OpenShell's format. What an endpoint allows is said
// by a policy; a profile's endpoints only say where its credentials may go.
type Profile struct {
	ID          string `yaml:"id" json:"id"`
	DisplayName string `yaml:"display_name" json:"display_name,omitempty"`
	Description string `yaml:"description" json:"description,omitempty"`
	// Category is agent, inference, source_control, data, messaging, knowledge or
	// other.
	Category string `yaml:"category" json:"category,omitempty"`
	// InferenceCapable services are model APIs: a credential that is not the
	// provider's own is refused there.
	InferenceCapable bool         `yaml:"inference_capable" json:"inference_capable,omitempty"`
	Credentials      []Credential `yaml:"credentials" json:"credentials,omitempty"`
	Discovery        Discovery    `yaml:"discovery" json:"discovery"`
	Endpoints        []Endpoint   `yaml:"endpoints" json:"endpoints,omitempty"`
	// Binaries are OpenShell's hint for policies; nothing here enforces them.
	Binaries []any `yaml:"binaries" json:"-"`
}

// Credential is one secret of a service.
type Credential struct {
	Name        string `yaml:"name" json:"name"`
	Description string `yaml:"description" json:"description,omitempty"`
	// EnvVars are the variables that programs read it from.
	EnvVars  []string `yaml:"env_vars" json:"env_vars,omitempty"`
	Required bool     `yaml:"required" json:"required,omitempty"`
	// AuthStyle is how it travels, and with its field where its placeholder becomes a value
	// beside the header Authorization: bearer and basic (HeaderName, default Authorization),
	// header (HeaderName), query (QueryParam), path (PathTemplate) or nothing.
	AuthStyle    string   `yaml:"auth_style" json:"auth_style,omitempty"`
	HeaderName   string   `yaml:"header_name" json:"header_name,omitempty"`
	QueryParam   string   `yaml:"query_param" json:"query_param,omitempty"`
	PathTemplate string   `yaml:"path_template" json:"path_template,omitempty"`
	Refresh      *Refresh `yaml:"refresh" json:"refresh,omitempty"`
	// TokenGrant is not supported; a profile that has one is refused.
	TokenGrant any `yaml:"token_grant" json:"-"`
}

// Refresh is how a credential is made anew.
type Refresh struct {
	Strategy string `yaml:"strategy" json:"strategy"`
	TokenURL string `yaml:"token_url" json:"token_url,omitempty"`
	// AuthMethod is how the client's secret is sent, as RFC 7591 calls it: ours alone,
	// OpenShell sends it in the form.
	AuthMethod           string     `yaml:"token_endpoint_auth_method" json:"token_endpoint_auth_method,omitempty"`
	Scopes               []string   `yaml:"scopes" json:"scopes,omitempty"`
	RefreshBeforeSeconds int64      `yaml:"refresh_before_seconds" json:"refresh_before_seconds,omitempty"`
	MaxLifetimeSeconds   int64      `yaml:"max_lifetime_seconds" json:"max_lifetime_seconds,omitempty"`
	Material             []Material `yaml:"material" json:"material,omitempty"`
	AdditionalOutputs    []struct {
		Output     string `yaml:"output" json:"output"`
		Credential string `yaml:"credential" json:"credential"`
	} `yaml:"additional_outputs" json:"additional_outputs,omitempty"`
}

// Material is what a refresh is made from.
type Material struct {
	Name        string `yaml:"name" json:"name"`
	Description string `yaml:"description" json:"description,omitempty"`
	Required    bool   `yaml:"required" json:"required,omitempty"`
	Secret      bool   `yaml:"secret" json:"secret,omitempty"`
}

// Discovery names the credentials that may be taken from the caller's
// environment.
type Discovery struct {
	Credentials []string `yaml:"credentials" json:"credentials,omitempty"`
}

// Endpoint is where credentials may be used. The fields about what may be asked
// there are OpenShell's policy fragment, read and left to policies.
type Endpoint struct {
	Host  string   `yaml:"host" json:"host"`
	Port  uint16   `yaml:"port" json:"port,omitempty"`
	Ports []uint16 `yaml:"ports" json:"ports,omitempty"`
	Path  string   `yaml:"path" json:"path,omitempty"`

	Protocol    string         `yaml:"protocol" json:"protocol,omitempty"`
	Access      string         `yaml:"access" json:"access,omitempty"`
	Enforcement string         `yaml:"enforcement" json:"enforcement,omitempty"`
	TLS         string         `yaml:"tls" json:"tls,omitempty"`
	Rest        map[string]any `yaml:",inline" json:"-"`
}

// fragment are the further fields of an endpoint that OpenShell knows.
var fragment = []string{
	"rules", "deny_rules", "allowed_ips", "allow_encoded_slash", "websocket_credential_rewrite", "request_body_credential_rewrite",
	"allow_uninspected_credentials", "persisted_queries", "graphql_persisted_queries", "graphql_max_body_bytes",
	"json_rpc_max_body_bytes", "mcp", "credential_signing", "signing_service", "signing_region",
}

// Patterns are compiled by who needs them: every command of the runtime starts
// with this package, and few use it.
var (
	idPattern  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`) })
	envPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`) })
	// reservedKey are the forms of revisions and handles in placeholders.
	reservedKey = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(v[0-9]+|s[0-9a-fA-F]+)_`) })
)

var (
	categories = []string{"", "agent", "inference", "source_control", "data", "messaging", "knowledge", "other"}
	authStyles = []string{"", "bearer", "header", "query", "basic", "path"}
	strategies = []string{RefreshToken, ClientCredentials, ServiceAccount, AssumeRole, "static", "external"}
)

// ParseProfile reads and validates a profile. Unknown keys are errors.
func ParseProfile(file string, text []byte) (*Profile, error) {
	if len(text) > MaxProfile {
		return nil, fmt.Errorf("%s: profile is larger than %d bytes", file, MaxProfile)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	p := &Profile{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", file)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

func (p *Profile) validate() error {
	switch {
	case !idPattern().MatchString(p.ID):
		return fmt.Errorf("id %q: want lower-case letters, digits and hyphens", p.ID)
	case !slices.Contains(categories, p.Category):
		return fmt.Errorf("unsupported provider profile category: %s", p.Category)
	case len(p.Credentials) > MaxCredentials || len(p.Endpoints) > MaxEndpoints:
		return fmt.Errorf("more than %d credentials or %d endpoints", MaxCredentials, MaxEndpoints)
	}
	names, vars := map[string]bool{}, map[string]string{}
	for i := range p.Credentials {
		c := &p.Credentials[i]
		if c.Name == "" || names[c.Name] {
			return fmt.Errorf("credentials[%d]: name %q is empty or there twice", i, c.Name)
		}
		names[c.Name] = true
		if err := c.validate(p); err != nil {
			return fmt.Errorf("credentials[%d] %s: %w", i, c.Name, err)
		}
		for _, v := range c.EnvVars {
			if vars[v] != "" {
				return fmt.Errorf("credentials[%d] %s: %s is %s's, too", i, c.Name, v, vars[v])
			}
			vars[v] = c.Name
		}
	}
	for _, n := range p.Discovery.Credentials {
		if !names[n] {
			return fmt.Errorf("discovery.credentials: there is no credential %q", n)
		}
	}
	for i := range p.Endpoints {
		if err := p.Endpoints[i].validate(); err != nil {
			return fmt.Errorf("endpoints[%d]: %w", i, err)
		}
	}
	return nil
}

// style is the auth_style, which OpenShell compares without case and space.
func (c *Credential) style() string { return strings.ToLower(strings.TrimSpace(c.AuthStyle)) }

func (c *Credential) validate(p *Profile) error {
	for _, v := range c.EnvVars {
		if !envPattern().MatchString(v) || reservedKey().MatchString(v) {
			return fmt.Errorf("env_vars: %q is not a variable's name, or one that placeholders reserve", v)
		}
	}
	switch style := c.style(); {
	case !slices.Contains(authStyles, style):
		return fmt.Errorf("unsupported auth_style: %s", c.AuthStyle)
	case style == "header" && c.HeaderName == "":
		return errors.New("header_name is required for header auth")
	case style == "path" && strings.Count(c.PathTemplate, "{credential}") != 1:
		return errors.New("path_template is required for path auth, with {credential} once in it")
	case style == "query" && c.QueryParam == "":
		return errors.New("query_param is required for query auth")
	}
	if c.TokenGrant != nil {
		return errors.New("token_grant is not supported, so a profile that has it is refused: it wants an identity of the sandbox's own from SPIFFE; refresh makes tokens with a client's secret")
	}
	if c.Refresh != nil {
		return c.Refresh.validate(p, c.Name)
	}
	return nil
}

func (e *Endpoint) validate() error {
	if e.Host == "" {
		return errors.New("host must not be empty: a credential without one would belong everywhere")
	}
	labels := strings.Split(e.Host, ".")
	if strings.Contains(e.Host, "*") && len(labels) < 3 {
		return fmt.Errorf("host %q reaches too much: a wildcard needs three labels", e.Host)
	}
	if e.Port == 0 && len(e.Ports) == 0 || slices.Contains(e.Ports, 0) {
		return errors.New("port must be 1 to 65535")
	}
	if e.Path != "" && !strings.HasPrefix(e.Path, "/") && e.Path != "**" {
		return fmt.Errorf("path %q must start with / or be **", e.Path)
	}
	for k := range e.Rest {
		if !slices.Contains(fragment, k) {
			return fmt.Errorf("unknown field %q", k)
		}
	}
	return nil
}

// EffectivePorts are the endpoint's ports: ports wins over port.
func (e *Endpoint) EffectivePorts() []uint16 {
	if len(e.Ports) > 0 {
		return e.Ports
	}
	return []uint16{e.Port}
}

//go:embed profiles/*.yaml
var builtin embed.FS

// Builtin lists the profiles that come with the program, by ID.
func Builtin() ([]*Profile, error) {
	files, err := fs.Glob(builtin, "profiles/*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*Profile
	for _, f := range files {
		text, err := builtin.ReadFile(f)
		if err != nil {
			return nil, err
		}
		p, err := ParseProfile(path.Base(f), text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
