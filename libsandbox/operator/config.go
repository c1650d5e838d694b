// SPDX-License-Identifier: Apache-2.0

// Package operator is what the operator of a machine decides: the configuration
// file, and which policy applies to a container. Both are read, never guessed.
package operator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/bytesize"
	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/libsandbox/plan"
	"openshell.dev/runtime/policy"
)

// DefaultConfigFile is the operator's configuration; it may be absent.
const DefaultConfigFile = "/etc/openshell/config.yaml"

// DefaultPoliciesDir holds the operator's policies unless the configuration
// names another.
const DefaultPoliciesDir = "/etc/openshell/policies"

// DefaultLogDir holds decision records unless the configuration names another.
const DefaultLogDir = "/var/log/openshell"

// DefaultLogMaxAge is log_max_age where the configuration does not set it: long enough to
// look into an incident that somebody reports weeks later.
const DefaultLogMaxAge = "720h"

// DefaultLogMaxBytes is log_max_bytes where the configuration does not set it: sixteen logs
// of full size, or tens of thousands of small ones.
const DefaultLogMaxBytes = 1 << 30

// MaxConfigSize bounds the operator's configuration file, in bytes.
const MaxConfigSize = 1 << 20

// PolicyNone is the policy name that gives plain runc behaviour. Only the
// operator's configuration can say it, never a flag's caller or a workload.
const PolicyNone = "none"

// Config is the operator's configuration. It is trusted; everything that a
// container or its engine's caller can influence is not in here.
type Config struct {
	// Policy is the default: a name in PoliciesDir, a path, or "none".
	Policy      string `yaml:"policy"`
	PoliciesDir string `yaml:"policies_dir"`
	// AnnotationPaths accepts a file path in the openshell.dev/policy
	// annotation, for engines whose callers are root-equivalent anyway.
	AnnotationPaths bool `yaml:"annotation_paths"`
	// EnvironmentPolicy honours OPENSHELL_POLICY in the container's
	// environment, for engines without annotations (Docker before 24).
	EnvironmentPolicy bool `yaml:"environment_policy"`
	// Allow names refused config.json fields that this operator accepts.
	Allow    []string       `yaml:"allow"`
	Landlock LandlockConfig `yaml:"landlock"`
	// FilesystemBaseline says whether the paths that programs need to start are added to a
	// policy's filesystem_policy.
	FilesystemBaseline Baseline `yaml:"filesystem_baseline"`
	// LogDir holds one folder of decision records for each container.
	LogDir string `yaml:"log_dir"`
	// LogMaxAge is how long a log is kept after the end of its sandbox, as
	// time.ParseDuration reads it; 0 is without limit, empty is DefaultLogMaxAge.
	LogMaxAge string `yaml:"log_max_age"`
	// LogMaxBytes bounds all logs together, in bytes or with a unit (512MiB, 1GiB): the
	// oldest of ended sandboxes are removed. 0 is no bound, nil is DefaultLogMaxBytes.
	LogMaxBytes *Bytes         `yaml:"log_max_bytes"`
	Upstream    UpstreamConfig `yaml:"upstream"`
	// Middlewares are the services that policies may send requests through.
	Middlewares []MiddlewareService `yaml:"middlewares"`
	// InferenceFile holds the routes of inference.local.
	InferenceFile string `yaml:"inference_file"`
	// ProvidersDir holds the providers of `openshell provider`.
	ProvidersDir string `yaml:"providers_dir"`
	// AnnotationProviders honours the openshell.dev/providers annotation, for
	// engines whose callers may use every provider anyway.
	AnnotationProviders bool `yaml:"annotation_providers"`
	// CredentialPlacement says where in a request placeholders become values.
	CredentialPlacement Placement `yaml:"credential_placement"`
	// UnspecifiedEnforcement is what an endpoint without enforcement does: audit,
	// OpenShell's default, or enforce.
	UnspecifiedEnforcement policy.Enforcement `yaml:"unspecified_enforcement"`
	// ControlPlanePorts are the ports of a cluster's control plane (2379, 2380, 6443,
	// 10250, 10255) that policies may allow; empty blocks all of them.
	ControlPlanePorts []uint16 `yaml:"control_plane_ports"`
	// PlainEndpointTLS is what the proxy does with TLS at an endpoint without protocol:
	// PlainSplice (default) or PlainTerminate.
	PlainEndpointTLS PlainTLS `yaml:"plain_endpoint_tls"`
	// Tracing says whether programs of a sandbox may trace each other: auto (the default),
	// allow or deny.
	Tracing plan.Tracing `yaml:"tracing"`
	// PolicyValidationFailureMode is what becomes of a running sandbox that is given
	// an invalid policy.
	PolicyValidationFailureMode FailureMode `yaml:"policy_validation_failure_mode"`
}

// FailureMode is what an invalid policy does to a running sandbox, in OpenShell's
// words.
type FailureMode string

// The modes.
const (
	// RetainLastValid leaves it the policy that it has.
	RetainLastValid FailureMode = "retain_last_valid"
	// FailClosed denies everything until a valid policy is set.
	FailClosed FailureMode = "fail_closed"
)

// PlainTLS is the value of plain_endpoint_tls.
type PlainTLS string

// The values of plain_endpoint_tls.
const (
	// PlainSplice compares the server name with the host and forwards TLS unread; the
	// default.
	PlainSplice PlainTLS = "splice"
	// PlainTerminate ends TLS and compares the host of each request, as OpenShell does.
	// Only HTTP passes then.
	PlainTerminate PlainTLS = "terminate"
)

// UpstreamConfig is how upstreams are verified.
type UpstreamConfig struct {
	// CAFiles hold certificates (PEM) that are trusted beside the system's.
	CAFiles []string `yaml:"ca_files"`
}

// LandlockConfig is the least Landlock that a sandbox may start with.
type LandlockConfig struct {
	// Floor is the lowest acceptable ABI; 0 accepts a kernel without Landlock.
	Floor *int `yaml:"floor"`
	// MissingPaths is what a path that the container lacks does to a sandbox whose policy
	// has landlock.compatibility: hard_requirement.
	MissingPaths MissingPaths `yaml:"missing_paths"`
}

// MissingPaths is the value of landlock.missing_paths.
type MissingPaths string

// The values of landlock.missing_paths.
const (
	// MissingSkip skips the path, as OpenShell 0.1 does; the default. The sandbox does not
	// start if it has none of the policy's paths.
	MissingSkip MissingPaths = "skip"
	// MissingFail does not start the sandbox, as OpenShell 0.0.x does.
	MissingFail MissingPaths = "fail"
)

// Placement is the value of credential_placement.
type Placement string

// The values of credential_placement.
const (
	// PlacementDeclared is the header Authorization and the place that the profile declares
	// for the credential, as in OpenShell 0.1; the default.
	PlacementDeclared Placement = "declared"
	// PlacementAny is every header, the path and the query, as in OpenShell 0.0.x.
	PlacementAny Placement = "any"
)

// Baseline is the value of filesystem_baseline.
type Baseline string

// The values of filesystem_baseline.
const (
	// BaselineAdd adds the paths of policy.Baseline, as OpenShell does; the default.
	BaselineAdd Baseline = "add"
	// BaselineExplicit adds no paths to a filesystem_policy that is present.
	BaselineExplicit Baseline = "explicit"
)

// LoadConfig reads the operator's configuration. A missing default file is an
// empty configuration; a missing named file, an unknown key or a wrong value is
// an error, because a half-read configuration would be a weaker one.
func LoadConfig(file string) (*Config, error) {
	named := file != ""
	if !named {
		file = DefaultConfigFile
	}
	data, err := boundedfile.Read(file, MaxConfigSize)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("read operator configuration: %w", err)
	}
	return parseConfig(file, data)
}

// parseConfig reads a configuration and completes it; nothing is a whole one.
func parseConfig(file string, data []byte) (*Config, error) {
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("operator configuration %s: %w", file, plainError(err))
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("operator configuration %s: more than one YAML document", file)
	}
	return c, c.complete(file)
}

// plainError returns an error of yaml.v3 in the words of the configuration.
func plainError(err error) error {
	var all *yaml.TypeError
	if !errors.As(err, &all) {
		return err
	}
	unknownField := regexp.MustCompile(`^(line \d+): field (.*) not found in type \S+$`)
	wrongType := regexp.MustCompile("(?s)^(line \\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")
	var lines []string
	for _, text := range all.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("%s: unknown key %q", m[1], m[2])
		} else if m := wrongType.FindStringSubmatch(text); m != nil {
			is := map[string]string{"map": "a mapping", "seq": "a list"}[m[2]]
			if is == "" {
				is = strconv.Quote(m[3])
			}
			text = fmt.Sprintf("%s: the value is %s, want %s", m[1], is, wanted(m[4]))
		}
		lines = append(lines, text)
	}
	return errors.New(strings.Join(lines, "; "))
}

// wanted names the values of a Go type for a person who writes a configuration.
func wanted(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.Contains(goType, "int"):
		return "a whole number"
	case goType == "bool":
		return "true or false"
	case strings.HasSuffix(goType, "Config"), strings.HasSuffix(goType, "Service"):
		return "a mapping"
	}
	return "text"
}

// Bytes is a log_max_bytes: a number of bytes, which may be written with a unit (1GiB).
type Bytes int64

// UnmarshalYAML reads a number of bytes.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	size, err := bytesize.Parse(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("line %d: log_max_bytes is %q, want a number of bytes such as 1073741824, 512MiB or 1GiB, or 0 for no bound", n.Line, n.Value)
	}
	*b = Bytes(size)
	return nil
}

func (c *Config) complete(file string) error {
	if c.PoliciesDir == "" {
		c.PoliciesDir = DefaultPoliciesDir
	}
	if c.InferenceFile == "" {
		c.InferenceFile = inferencefile.DefaultFile
	}
	if c.ProvidersDir == "" {
		c.ProvidersDir = provider.DefaultDir
	}
	if c.LogDir == "" {
		c.LogDir = DefaultLogDir
	}
	if err := c.resolvePaths(file); err != nil {
		return fmt.Errorf("operator configuration %s: %w", file, err)
	}
	if err := c.completeLogLimits(); err != nil {
		return fmt.Errorf("operator configuration %s: %w", file, err)
	}
	switch c.UnspecifiedEnforcement {
	case policy.EnforcementUnset, policy.EnforcementAudit, policy.EnforcementBlock:
	default:
		return fmt.Errorf("operator configuration %s: unspecified_enforcement is %q, want audit or enforce", file, c.UnspecifiedEnforcement)
	}
	if err := errors.Join(
		choose("plain_endpoint_tls", &c.PlainEndpointTLS, PlainSplice, PlainTerminate),
		choose("tracing", &c.Tracing, plan.TracingAuto, plan.TracingAllow, plan.TracingDeny),
		choose("policy_validation_failure_mode", &c.PolicyValidationFailureMode, RetainLastValid, FailClosed),
		choose("credential_placement", &c.CredentialPlacement, PlacementDeclared, PlacementAny),
		choose("filesystem_baseline", &c.FilesystemBaseline, BaselineAdd, BaselineExplicit),
		choose("landlock.missing_paths", &c.Landlock.MissingPaths, MissingSkip, MissingFail),
	); err != nil {
		return fmt.Errorf("operator configuration %s: %w", file, err)
	}
	if err := policy.CheckControlPlanePorts(c.ControlPlanePorts); err != nil {
		return fmt.Errorf("operator configuration %s: control_plane_ports: %w", file, err)
	}
	if err := checkMiddlewares(c.Middlewares); err != nil {
		return fmt.Errorf("operator configuration %s: %w", file, err)
	}
	if c.Landlock.Floor == nil {
		one := 1
		c.Landlock.Floor = &one
	}
	if *c.Landlock.Floor < 0 {
		return fmt.Errorf("operator configuration %s: landlock.floor is %d, want 0 or an ABI number", file, *c.Landlock.Floor)
	}
	return nil
}

// choose gives the field key its default, the first of values, if it is not set. It returns
// an error for a value that is not among values.
func choose[T ~string](key string, field *T, values ...T) error {
	if *field == "" {
		*field = values[0]
	}
	if slices.Contains(values, *field) {
		return nil
	}
	var list []string
	for _, v := range values {
		list = append(list, string(v))
	}
	last := len(list) - 1
	return fmt.Errorf("%s is %q, want %s or %s", key, *field, strings.Join(list[:last], ", "), list[last])
}

// PlanOptions returns the options of a plan that the operator decides, on a kernel with a
// Landlock ABI.
func (c *Config) PlanOptions(landlockABI int) plan.Options {
	return plan.Options{
		LandlockABI: landlockABI, Floor: *c.Landlock.Floor, Allow: c.Allow, Tracing: c.Tracing,
		Explicit: c.FilesystemBaseline == BaselineExplicit,
		Complete: c.Landlock.MissingPaths == MissingFail,
		Enforce:  c.UnspecifiedEnforcement == policy.EnforcementBlock,
	}
}

// resolvePaths makes relative paths absolute: they begin at the folder of the
// configuration file, because the runtime's working directory is the bundle.
func (c *Config) resolvePaths(file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	paths := []*string{&c.PoliciesDir, &c.InferenceFile, &c.ProvidersDir, &c.LogDir}
	if strings.ContainsRune(c.Policy, filepath.Separator) { // else it is a name
		paths = append(paths, &c.Policy)
	}
	for i := range c.Upstream.CAFiles {
		paths = append(paths, &c.Upstream.CAFiles[i])
	}
	for i := range c.Middlewares {
		if m := &c.Middlewares[i]; m.CAFile != "" {
			paths = append(paths, &m.CAFile)
		}
	}
	for _, p := range paths {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(file), *p)
		}
	}
	return nil
}

func (c *Config) completeLogLimits() error {
	if c.LogMaxAge == "" {
		c.LogMaxAge = DefaultLogMaxAge
	}
	if age, err := time.ParseDuration(c.LogMaxAge); err != nil || age < 0 {
		return fmt.Errorf("log_max_age is %q, want hours such as 720h, or 0 to keep logs without limit", c.LogMaxAge)
	}
	if c.LogMaxBytes == nil {
		most := Bytes(DefaultLogMaxBytes)
		c.LogMaxBytes = &most
	}
	return nil
}

// LogLimits are log_max_age and log_max_bytes.
func (c *Config) LogLimits() decisionlog.Limits {
	age, _ := time.ParseDuration(c.LogMaxAge) // completeLogLimits has checked it
	return decisionlog.Limits{MaxAge: age, MaxBytes: int64(*c.LogMaxBytes)}
}
