// SPDX-License-Identifier: Apache-2.0

// Package operator reads what the operator of a machine decides: the configuration file
// ([LoadConfig]), and which policy applies to a container ([FindPolicy]).
//
// The operator is trusted. Callers of an engine and workloads are not: they can pick one of
// the operator's policies by its name, and can only do more if the configuration says so.
// Nothing is guessed: an unknown key, a wrong value, or a policy that cannot be read is an
// error, because a configuration that is read in part would be a weaker one.
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

// DefaultConfigFile is the path of the operator's configuration. The file may be missing.
const DefaultConfigFile = "/etc/openshell/config.yaml"

// DefaultPoliciesDir is policies_dir if the configuration does not set it.
const DefaultPoliciesDir = "/etc/openshell/policies"

// DefaultLogDir is log_dir if the configuration does not set it.
const DefaultLogDir = "/var/log/openshell"

// DefaultLogMaxAge is log_max_age if the configuration does not set it: long enough to look
// into an incident that is reported weeks later.
const DefaultLogMaxAge = "720h"

// DefaultLogMaxBytes is log_max_bytes, in bytes, if the configuration does not set it:
// sixteen logs of full size, or tens of thousands of small ones.
const DefaultLogMaxBytes = 1 << 30

// MaxConfigSize bounds the operator's configuration file, in bytes.
const MaxConfigSize = 1 << 20

// PolicyNone is the policy name for plain runc behaviour. Only the operator's configuration
// can have it: neither the flag of a caller nor a workload can turn the sandbox off.
const PolicyNone = "none"

// Config is the operator's configuration. [LoadConfig] sets the defaults and makes relative
// paths absolute: they begin at the folder of the configuration file. A wrong value is an
// error there. docs/config.yaml shows every key to operators.
type Config struct {
	// Policy is the policy of containers that name none: a name in PoliciesDir, a path, or
	// "none". The zero value means the built-in policy.
	Policy string `yaml:"policy"`
	// PoliciesDir is the folder of the operator's policies. The default is
	// DefaultPoliciesDir.
	PoliciesDir string `yaml:"policies_dir"`
	// AnnotationPaths accepts the path of a file in the annotation AnnotationPolicy. It is
	// for engines whose callers are root on the host anyway. The zero value accepts names
	// only.
	AnnotationPaths bool `yaml:"annotation_paths"`
	// EnvironmentPolicy accepts the name of a policy in the container's variable
	// OPENSHELL_POLICY. It is for engines without annotations (Docker before 24). The zero
	// value ignores the variable.
	EnvironmentPolicy bool `yaml:"environment_policy"`
	// Allow lists fields of config.json whose refusals the operator accepts. A name that is
	// not in plan.Fields is an error when a sandbox is made. The zero value accepts none.
	Allow []string `yaml:"allow"`
	// Landlock says what a sandbox needs of the kernel's Landlock.
	Landlock LandlockConfig `yaml:"landlock"`
	// FilesystemBaseline says whether the paths that programs need to start are added to a
	// policy's filesystem_policy. The default is BaselineAdd.
	FilesystemBaseline Baseline `yaml:"filesystem_baseline"`
	// LogDir has a folder of decision records for each container. The default is
	// DefaultLogDir.
	LogDir string `yaml:"log_dir"`
	// LogMaxAge is how long a log is kept after the end of its sandbox, as
	// time.ParseDuration reads it. 0 is without limit. The default is DefaultLogMaxAge.
	LogMaxAge string `yaml:"log_max_age"`
	// LogMaxBytes bounds all logs together, in bytes or with a unit (512MiB, 1GiB): the
	// oldest logs of ended sandboxes are removed. 0 is no bound. The default, for nil, is
	// DefaultLogMaxBytes.
	LogMaxBytes *Bytes `yaml:"log_max_bytes"`
	// Upstream says how the proxy verifies upstreams.
	Upstream UpstreamConfig `yaml:"upstream"`
	// Middlewares are the services that policies may send requests through. The zero value
	// has none.
	Middlewares []MiddlewareService `yaml:"middlewares"`
	// InferenceFile is the file with the routes of inference.local. It may be missing. The
	// default is inferencefile.DefaultFile.
	InferenceFile string `yaml:"inference_file"`
	// ProvidersDir is the folder of the providers of `openshell provider`. The default is
	// provider.DefaultDir.
	ProvidersDir string `yaml:"providers_dir"`
	// AnnotationProviders accepts the annotation openshell.dev/providers. It is for engines
	// whose callers may use every provider anyway. The zero value makes the annotation an
	// error.
	AnnotationProviders bool `yaml:"annotation_providers"`
	// CredentialPlacement says where in a request the proxy replaces placeholders by
	// credentials. The default is PlacementDeclared.
	CredentialPlacement Placement `yaml:"credential_placement"`
	// UnspecifiedEnforcement is the enforcement of an endpoint that does not set it: audit
	// or enforce. The zero value means audit, as in OpenShell.
	UnspecifiedEnforcement policy.Enforcement `yaml:"unspecified_enforcement"`
	// ControlPlanePorts are the ports of a cluster's control plane (2379, 2380, 6443,
	// 10250, 10255) that policies may allow. Any other port is an error. The zero value
	// blocks all of them.
	ControlPlanePorts []uint16 `yaml:"control_plane_ports"`
	// PlainEndpointTLS says what the proxy does with TLS at an endpoint without protocol.
	// The default is PlainSplice.
	PlainEndpointTLS PlainTLS `yaml:"plain_endpoint_tls"`
	// Tracing says whether programs of a sandbox may trace each other. The default is
	// plan.TracingAuto.
	Tracing plan.Tracing `yaml:"tracing"`
	// PolicyValidationFailureMode says what happens to a running sandbox that is given an
	// invalid policy. The default is RetainLastValid.
	PolicyValidationFailureMode FailureMode `yaml:"policy_validation_failure_mode"`
}

// FailureMode is the value of policy_validation_failure_mode. The values are OpenShell's.
type FailureMode string

// The values of policy_validation_failure_mode.
const (
	// RetainLastValid rejects the invalid policy, and the old one stays in force. It is the
	// default.
	RetainLastValid FailureMode = "retain_last_valid"
	// FailClosed blocks all traffic until a valid policy is set.
	FailClosed FailureMode = "fail_closed"
)

// PlainTLS is the value of plain_endpoint_tls.
type PlainTLS string

// The values of plain_endpoint_tls.
const (
	// PlainSplice compares the server name with the host and forwards the TLS connection
	// unread. It is the default.
	PlainSplice PlainTLS = "splice"
	// PlainTerminate terminates TLS and compares the host of each request, as OpenShell
	// does. Then only HTTP passes.
	PlainTerminate PlainTLS = "terminate"
)

// UpstreamConfig says how the proxy verifies upstreams.
type UpstreamConfig struct {
	// CAFiles are files of certificates (PEM) that are trusted in addition to the
	// certificates of the machine. A file without a certificate is an error when a sandbox
	// is made. The zero value adds none.
	CAFiles []string `yaml:"ca_files"`
}

// LandlockConfig says what a sandbox needs of the kernel's Landlock.
type LandlockConfig struct {
	// Floor is the lowest accepted version of Landlock's ABI. 0 accepts a kernel without
	// Landlock; a negative number is an error. The default, for nil, is 1.
	Floor *int `yaml:"floor"`
	// MissingPaths says what happens if the container lacks a path of a policy with
	// landlock.compatibility: hard_requirement. The default is MissingSkip.
	MissingPaths MissingPaths `yaml:"missing_paths"`
}

// MissingPaths is the value of landlock.missing_paths.
type MissingPaths string

// The values of landlock.missing_paths.
const (
	// MissingSkip skips the path, as OpenShell 0.1 does. A sandbox that has none of the
	// policy's paths does not start. It is the default.
	MissingSkip MissingPaths = "skip"
	// MissingFail stops the sandbox from starting, as OpenShell 0.0.x does.
	MissingFail MissingPaths = "fail"
)

// Placement is the value of credential_placement.
type Placement string

// The values of credential_placement.
const (
	// PlacementDeclared replaces placeholders in the header Authorization and in the place
	// that the profile declares for the credential, as OpenShell 0.1 does. It is the
	// default.
	PlacementDeclared Placement = "declared"
	// PlacementAny replaces placeholders in every header, the path and the query, as
	// OpenShell 0.0.x does.
	PlacementAny Placement = "any"
)

// Baseline is the value of filesystem_baseline.
type Baseline string

// The values of filesystem_baseline.
const (
	// BaselineAdd adds the paths of policy.Baseline, as OpenShell does. It is the default.
	BaselineAdd Baseline = "add"
	// BaselineExplicit adds no paths to a policy's filesystem_policy.
	BaselineExplicit Baseline = "explicit"
)

// LoadConfig reads the operator's configuration from file, or from [DefaultConfigFile] if
// file is empty. A default file that is missing is an empty configuration. A named file that
// is missing, an unknown key and a wrong value are errors.
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

// parseConfig parses a configuration and sets the defaults. Empty data is a configuration.
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

// plainError returns an error of yaml.v3 without Go's types.
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

// wanted describes the values of a Go type to a person who writes a configuration.
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

// Bytes is the value of log_max_bytes: a number of bytes, which can be written with a unit
// (1GiB).
type Bytes int64

// UnmarshalYAML parses a number of bytes.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	size, err := bytesize.Parse(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("line %d: log_max_bytes is %q, want a number of bytes such as 1073741824, 512MiB or 1GiB, or 0 for no bound", n.Line, n.Value)
	}
	*b = Bytes(size)
	return nil
}

// complete sets the defaults and returns an error for a wrong value.
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

// choose sets *field, the value of key, to the first of values if it is empty. Any value that
// is not one of values is an error.
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

// PlanOptions returns the options of a plan that the operator decides. landlockABI is the
// version of the kernel's Landlock.
func (c *Config) PlanOptions(landlockABI int) plan.Options {
	return plan.Options{
		LandlockABI: landlockABI, LandlockFloor: *c.Landlock.Floor, Allow: c.Allow, Tracing: c.Tracing,
		OnlyListedPaths:  c.FilesystemBaseline == BaselineExplicit,
		RequireAllPaths:  c.Landlock.MissingPaths == MissingFail,
		EnforceByDefault: c.UnspecifiedEnforcement == policy.EnforcementBlock,
	}
}

// resolvePaths makes relative paths absolute. They begin at the folder of the configuration
// file, because the runtime's working directory is the bundle.
func (c *Config) resolvePaths(file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	paths := []*string{&c.PoliciesDir, &c.InferenceFile, &c.ProvidersDir, &c.LogDir}
	if strings.ContainsRune(c.Policy, filepath.Separator) { // otherwise it is a name
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

// completeLogLimits sets the defaults of the limits on logs, and checks them.
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

// LogLimits returns log_max_age and log_max_bytes.
func (c *Config) LogLimits() decisionlog.Limits {
	age, _ := time.ParseDuration(c.LogMaxAge) // completeLogLimits has checked it
	return decisionlog.Limits{MaxAge: age, MaxBytes: int64(*c.LogMaxBytes)}
}
