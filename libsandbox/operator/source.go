// SPDX-License-Identifier: Apache-2.0

package operator

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// AnnotationPolicy picks one of the operator's policies for a container.
const AnnotationPolicy = "openshell.dev/policy"

// EnvironmentPolicy is the variable of the container's environment that picks a
// policy where the operator's configuration allows it.
const EnvironmentPolicy = "OPENSHELL_POLICY"

// MaxPolicySize bounds a policy file, in bytes (OpenShell's own limit).
const MaxPolicySize = 4 << 20

//go:embed default_policy.yaml
var builtinPolicy []byte

// policyName is what a policy in the operator's directory may be called: no
// separators, no dots first, so that a name cannot leave the directory.
var policyName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`) })

// Source is the policy text that applies and where it came from.
type Source struct {
	// Name is for messages: a path, or "built-in default".
	Name string
	// Text is the YAML; empty when None.
	Text []byte
	// None means plain runc behaviour, by the operator's word.
	None bool
}

// FindPolicy decides which policy applies to spec: flag, then annotation, then
// the operator's default, then the built-in one. A source that is named and
// cannot be read is an error; the next one is never tried in its place.
func FindPolicy(flag string, spec *specs.Spec, c *Config) (*Source, error) {
	if flag != "" {
		if flag == PolicyNone {
			return nil, fmt.Errorf("--policy %s: only the operator's configuration can turn the sandbox off (policy: none in %s)", PolicyNone, DefaultConfigFile)
		}
		return c.read(flag, true, "--policy")
	}
	if v, ok := spec.Annotations[AnnotationPolicy]; ok {
		return c.read(v, c.AnnotationPaths, "annotation "+AnnotationPolicy)
	}
	if c.EnvironmentPolicy && spec.Process != nil {
		for _, e := range spec.Process.Env {
			if v, ok := strings.CutPrefix(e, EnvironmentPolicy+"="); ok {
				return c.read(v, false, "environment "+EnvironmentPolicy)
			}
		}
	}
	switch c.Policy {
	case PolicyNone:
		return &Source{Name: PolicyNone, None: true}, nil
	case "":
		return &Source{Name: "built-in default", Text: builtinPolicy}, nil
	}
	return c.read(c.Policy, true, "operator's default policy")
}

func (c *Config) read(value string, paths bool, origin string) (*Source, error) {
	file := value
	if strings.ContainsRune(value, filepath.Separator) {
		if !paths {
			return nil, fmt.Errorf("%s: %q is a path; only names of policies in %s are accepted here", origin, value, c.PoliciesDir)
		}
	} else {
		name := strings.TrimSuffix(value, ".yaml")
		if !policyName().MatchString(name) {
			return nil, fmt.Errorf("%s: %q is not a policy name", origin, value)
		}
		file = filepath.Join(c.PoliciesDir, name+".yaml")
	}
	// Without O_NONBLOCK a FIFO would keep us.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// In the kernel's words Docker would take the container's program for missing.
		return nil, fmt.Errorf("%s: there is no policy %s", origin, file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read policy: %w", origin, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: policy %s is not a regular file", origin, file)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxPolicySize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read policy %s: %w", origin, file, err)
	}
	if len(text) > MaxPolicySize {
		return nil, fmt.Errorf("%s: policy %s is larger than %d bytes", origin, file, MaxPolicySize)
	}
	return &Source{Name: file, Text: text}, nil
}
