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

// AnnotationPolicy is the annotation that selects one of the operator's policies for a
// container.
const AnnotationPolicy = "openshell.dev/policy"

// EnvironmentPolicy is the variable of the container's environment that selects a policy, if
// the operator's configuration allows it.
const EnvironmentPolicy = "OPENSHELL_POLICY"

// MaxPolicySize bounds a policy file, in bytes. It is OpenShell's limit.
const MaxPolicySize = 4 << 20

//go:embed default_policy.yaml
var builtinPolicy []byte

// policyName matches the names of policies in the operator's folder. They have no separator
// and no dot at the beginning, so that a name cannot leave the folder.
var policyName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`) })

// Source is the policy that applies to a container.
type Source struct {
	// Name is for messages: a path, or "built-in default".
	Name string
	// Text is the YAML. It is empty if None is set.
	Text []byte
	// None means plain runc behaviour, because the operator's configuration says
	// `policy: none`.
	None bool
}

// FindPolicy finds the policy that applies to spec. The first of these decides: flag, the
// annotation [AnnotationPolicy], the variable [EnvironmentPolicy], the operator's default,
// the built-in policy. If its policy cannot be read, that is an error, and the next one is
// not tried.
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

// read reads the policy that value names: a name in PoliciesDir or, if paths is set, a path.
// origin says where the value is from, for errors.
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
	// Without O_NONBLOCK, opening a FIFO would not return.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Docker would take the kernel's text for one about the container's program.
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
