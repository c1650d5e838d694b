// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"openshell.dev/runtime/internal/secret"
)

// Kinds of origins beside a profile's refresh strategies.
const (
	// FromFile reads a file: a secret that Kubernetes mounts, one that another
	// program keeps fresh.
	FromFile = "file"
	// FromEnvironment reads a variable of whoever creates the sandbox. It is never
	// stored.
	FromEnvironment = "environment"
	FromVault       = "vault"
	FromKubernetes  = "kubernetes"
)

// The strategies of profiles.
const (
	RefreshToken      = "oauth2_refresh_token"
	ClientCredentials = "oauth2_client_credentials"
	ServiceAccount    = "google_service_account_jwt"
	AssumeRole        = "aws_sts_assume_role"
)

// How a client's secret is sent to a token endpoint (RFC 7591, RFC 6749 2.3.1). In the
// form, if a profile does not say.
const (
	SecretPost  = "client_secret_post"
	SecretBasic = "client_secret_basic"
)

// Ambient is the setting of AssumeRole by which AWS's own chain finds the keys that the
// role is assumed with, in place of given ones. It is asked for, never fallen back to.
const Ambient = "ambient_credentials"

// AmbientVariables are what AWS's chain is told by the environment of whoever
// configures the refresh; the secret ones are SecretVariables.
var (
	AmbientVariables = []string{
		"HOME", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED",
	}
	SecretVariables = []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"}
)

// Origin is where a credential comes from, again and again. What a profile says of
// it is kept as it was when a person configured it: a profile that is changed later
// leads no secret elsewhere.
type Origin struct {
	// Kind is one of the above.
	Kind string `json:"kind"`
	// Settings are no secrets; Material is, and is kept with the values.
	Settings map[string]string        `json:"settings,omitempty"`
	Material map[string]secret.Secret `json:"-"`
	// TokenURL, AuthMethod and Scopes are the profile's.
	TokenURL   string   `json:"token_url,omitempty"`
	AuthMethod string   `json:"token_endpoint_auth_method,omitempty"`
	Scopes     []string `json:"scopes,omitempty"`
	// Before is how long before its end a value is made anew, Lifetime the longest
	// it is used.
	Before   time.Duration `json:"before,omitempty"`
	Lifetime time.Duration `json:"lifetime,omitempty"`
	// Outputs are the further credentials that are made along, by what the strategy
	// calls them.
	Outputs map[string]string `json:"outputs,omitempty"`

	Configured time.Time `json:"configured"`
	Status     Status    `json:"status"`
}

// Status is how the last attempts went.
type Status struct {
	// Tried and Succeeded are the last times; Next is when it is tried again.
	Tried     time.Time `json:"tried,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	// Failures are those since the last success, Error the last one's reason, which
	// never holds a secret.
	Failures int    `json:"failures,omitempty"`
	Error    string `json:"error,omitempty"`
}

// materials is what a strategy is made from.
type materials struct {
	required, optional []string
	// secret ones are never taken from an argument.
	secret []string
	// outputs are what it makes beside the credential itself.
	outputs []string
}

var strategyMaterials = map[string]materials{
	RefreshToken: {required: []string{"client_id", "refresh_token"}, optional: []string{"client_secret"}, secret: []string{"refresh_token", "client_secret"}},
	ClientCredentials: {
		required: []string{"client_id", "client_secret"}, optional: []string{"tenant_id"}, secret: []string{"client_secret"},
	},
	ServiceAccount: {required: []string{"client_email", "private_key"}, optional: []string{"subject", "sub", "private_key_id"}, secret: []string{"private_key"}},
	AssumeRole: {
		required: []string{"role_arn"},
		optional: []string{"session_name", "external_id", "aws_region", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"},
		secret:   slices.Concat([]string{"aws_secret_access_key", "aws_session_token"}, SecretVariables), outputs: []string{"secret_access_key", "session_token"},
	},
}

// entraURL is where Microsoft's tenants have their tokens.
const entraURL = "https://login.microsoftonline.com/%s/oauth2/v2.0/token"

// NewRefresh makes the origin of a credential whose profile has a refresh strategy.
func (p *Profile) NewRefresh(credential string, settings map[string]string, material map[string]secret.Secret, now time.Time) (*Origin, error) {
	i := slices.IndexFunc(p.Credentials, func(c Credential) bool { return c.Name == credential })
	if i < 0 || p.Credentials[i].Refresh == nil {
		return nil, fmt.Errorf("profile %s has no refresh for credential %s", p.ID, credential)
	}
	r := p.Credentials[i].Refresh
	want, ok := strategyMaterials[r.Strategy]
	if !ok {
		return nil, fmt.Errorf("credential %s: its strategy %s makes nothing: openshell provider update gives it a value", credential, r.Strategy)
	}
	o := &Origin{
		Kind: r.Strategy, Settings: settings, Material: material, TokenURL: r.TokenURL, AuthMethod: r.AuthMethod, Scopes: r.Scopes, Configured: now.UTC(),
		Before: time.Duration(r.RefreshBeforeSeconds) * time.Second, Lifetime: time.Duration(r.MaxLifetimeSeconds) * time.Second,
	}
	extra := map[string]bool{}
	for _, m := range r.Material {
		extra[m.Name] = true
		if m.Required && !o.has(m.Name) {
			return nil, fmt.Errorf("credential %s: its refresh needs the material %s", credential, m.Name)
		}
	}
	for _, k := range want.required {
		if !o.has(k) {
			return nil, fmt.Errorf("credential %s: %s needs the material %s", credential, r.Strategy, k)
		}
	}
	if r.AuthMethod == SecretBasic && !o.has("client_secret") {
		return nil, fmt.Errorf("credential %s: %s needs the material client_secret", credential, SecretBasic)
	}
	if err := o.checkKeys(); err != nil {
		return nil, fmt.Errorf("credential %s: %w", credential, err)
	}
	for _, k := range slices.Concat(slices.Sorted(maps.Keys(settings)), slices.Sorted(maps.Keys(material))) {
		ambient := settings[Ambient] != "" && (k == Ambient || slices.Contains(AmbientVariables, k) || slices.Contains(SecretVariables, k))
		if !slices.Contains(want.required, k) && !slices.Contains(want.optional, k) && !extra[k] && !(ambient && r.Strategy == AssumeRole) {
			return nil, fmt.Errorf("%s takes no material %q: it takes %s", r.Strategy, k, strings.Join(slices.Concat(want.required, want.optional), ", "))
		}
	}
	for name, v := range material {
		if n := len(v.Reveal()); n == 0 || n > MaxValue {
			return nil, fmt.Errorf("material %s is empty or larger than %d bytes", name, MaxValue)
		}
	}
	if tenant := settings["tenant_id"]; tenant != "" && o.TokenURL == "" {
		o.TokenURL = fmt.Sprintf(entraURL, url.PathEscape(tenant))
	}
	if o.TokenURL == "" && r.Strategy == ServiceAccount {
		o.TokenURL = "https://oauth2.googleapis.com/token"
	}
	if err := checkTokenURL(o.TokenURL, r.Strategy == AssumeRole); err != nil {
		return nil, fmt.Errorf("credential %s: %w", credential, err)
	}
	for _, a := range r.AdditionalOutputs {
		if o.Outputs == nil {
			o.Outputs = map[string]string{}
		}
		o.Outputs[a.Output] = a.Credential
	}
	return o, nil
}

// checkKeys refuses a role that nobody can tell who assumes it.
func (o *Origin) checkKeys() error {
	if o.Kind != AssumeRole {
		return nil
	}
	id, secret := o.has("aws_access_key_id"), o.has("aws_secret_access_key")
	switch ambient := o.Settings[Ambient] != ""; {
	case id != secret, o.has("aws_session_token") && !id:
		return fmt.Errorf("%s takes aws_access_key_id and aws_secret_access_key together, and aws_session_token with them", AssumeRole)
	case ambient && id:
		return errors.New("--ambient-credentials and aws_access_key_id: want one of them")
	case !ambient && !id:
		return fmt.Errorf("%s needs the materials aws_access_key_id and aws_secret_access_key; --ambient-credentials takes what AWS's tools would take here", AssumeRole)
	}
	return nil
}

// Refreshes says whether the origin makes values out of others, by a profile's
// strategy.
func (o *Origin) Refreshes() bool {
	_, ok := strategyMaterials[o.Kind]
	return ok
}

func (o *Origin) has(name string) bool {
	return o.Settings[name] != "" || !o.Material[name].IsZero()
}

// SecretMaterial says whether a material must not stand in an argument.
func (p *Profile) SecretMaterial(credential, name string) bool {
	for _, c := range p.Credentials {
		if c.Name != credential || c.Refresh == nil {
			continue
		}
		if slices.Contains(strategyMaterials[c.Refresh.Strategy].secret, name) {
			return true
		}
		return slices.ContainsFunc(c.Refresh.Material, func(m Material) bool { return m.Name == name && m.Secret })
	}
	return false
}

// checkTokenURL refuses what secrets may not be sent to.
func checkTokenURL(text string, optional bool) error {
	if text == "" && optional {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case text == "":
		return fmt.Errorf("the profile's refresh has no token_url")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("refresh.token_url %q: want https://host/path", text)
	}
	return nil
}

// validate checks what a profile says of refreshing.
func (r *Refresh) validate(p *Profile, self string) error {
	if !slices.Contains(strategies, r.Strategy) {
		return fmt.Errorf("refresh.strategy %q: want one of %s", r.Strategy, strings.Join(strategies, ", "))
	}
	if r.TokenURL != "" {
		if err := checkTokenURL(r.TokenURL, false); err != nil {
			return err
		}
	}
	switch {
	case r.AuthMethod == "", (r.AuthMethod == SecretPost || r.AuthMethod == SecretBasic) && (r.Strategy == RefreshToken || r.Strategy == ClientCredentials):
	default:
		return fmt.Errorf("refresh.token_endpoint_auth_method %q: want %s or %s, of a strategy that has a client's secret", r.AuthMethod, SecretPost, SecretBasic)
	}
	if r.RefreshBeforeSeconds < 0 || r.MaxLifetimeSeconds < 0 || r.RefreshBeforeSeconds > maxSeconds || r.MaxLifetimeSeconds > maxSeconds {
		return fmt.Errorf("refresh: seconds must be 0 to %d", maxSeconds)
	}
	seen := map[string]bool{}
	for _, a := range r.AdditionalOutputs {
		i := slices.IndexFunc(p.Credentials, func(c Credential) bool { return c.Name == a.Credential })
		switch {
		case !slices.Contains(strategyMaterials[r.Strategy].outputs, a.Output) || seen[a.Output]:
			return fmt.Errorf("refresh.additional_outputs: %s has no output %q, or it is there twice", r.Strategy, a.Output)
		case i < 0 || a.Credential == self || len(p.Credentials[i].EnvVars) != 1 || p.Credentials[i].Refresh != nil:
			return fmt.Errorf("refresh.additional_outputs: %q must be another credential, with one variable and no refresh of its own", a.Credential)
		}
		seen[a.Output] = true
	}
	return nil
}

// Made are the credentials that origins of p make.
func (p *Provider) Made() map[string]string {
	out := map[string]string{}
	for name, o := range p.Origins {
		out[name] = name
		for _, c := range o.Outputs {
			out[c] = name
		}
	}
	return out
}

// Stale says which credentials cannot be used until their origin has been asked: they
// have no value, or one that has ended, or one that is only as good as its source is
// now.
func (p *Provider) Stale(now time.Time) []string {
	var out []string
	for name, origin := range p.Made() {
		o := p.Origins[origin]
		_, has := p.Values[name]
		end := p.Expires[name]
		switch {
		case o.Kind == FromEnvironment:
		case !has, !end.IsZero() && !now.Before(end), end.IsZero() && (o.Status.Failures > 0 || !now.Before(o.Status.Next)):
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Usable fails if one of the credentials cannot be used now.
func (p *Provider) Usable(now time.Time) error {
	stale := p.Stale(now)
	if len(stale) == 0 {
		return nil
	}
	o := p.Origins[p.Made()[stale[0]]]
	return fmt.Errorf("provider %s: credential %s has no value that can be used: %s; tried again at %s, or by: openshell provider refresh %s",
		p.Name, stale[0], o.Status.Error, o.Status.Next.Format(time.RFC3339), p.Name)
}

// Due says which origins must be asked at now.
func (p *Provider) Due(now time.Time) []string {
	var out []string
	for name, o := range p.Origins {
		if o.Kind != FromEnvironment && !now.Before(o.Status.Next) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
