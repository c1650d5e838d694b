// SPDX-License-Identifier: Apache-2.0

// Package plan decides everything that will be done to a container and does none
// of it: the same spec, policy and kernel give the same plan on every machine.
//
// A plan covers files, processes, privileges, and what programs must know of the
// proxy. That the network goes nowhere but to it is libsandbox/netns's work, on
// the live namespace.
package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/policy"
)

// Removed are the capabilities no sandbox keeps, whatever the engine grants.
// NET_RAW is one of them because since Linux 5.17 it allows SO_MARK, and with
// the proxy's mark a workload would be the proxy.
var Removed = []string{
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT",
	"CAP_SYS_TIME", "CAP_BPF", "CAP_PERFMON", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_AUDIT_CONTROL", "CAP_SYSLOG",
	"CAP_CHECKPOINT_RESTORE", "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
}

// devices are usable in every sandbox: runtime-spec's default devices and the
// terminal. They carry no data out.
var devices = []string{
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm",
}

// stateFolder is where the runtime keeps a sandbox's control socket and the key of
// its authority, below whatever root it is given.
const stateFolder = "@sandbox"

// FieldNetwork is the field of a Refusal that no operator can accept: the proxy has nothing
// to capture the host's network namespace with.
const FieldNetwork = "linux.namespaces.network"

// Refusal is a part of config.json that no sandbox may have.
type Refusal struct {
	// Field is its place in config.json, the name under `allow` in the
	// operator's configuration.
	Field, Reason string
}

func (r *Refusal) Error() string {
	if r.Field == FieldNetwork {
		return fmt.Sprintf("config.json: %s: %s; run the container on a network of its own (without --network host)", r.Field, r.Reason)
	}
	wayOut := "the operator"
	if r.Field == fieldMounts {
		wayOut = "mount a narrower folder, or the operator"
	}
	return fmt.Sprintf("config.json: %s: %s; %s can accept it with allow: [%q] in the configuration file", r.Field, r.Reason, wayOut, r.Field)
}

// Options are what the operator and the kernel say.
type Options struct {
	// LandlockABI is the kernel's; Floor the lowest the operator accepts.
	LandlockABI, Floor int
	// Explicit adds no paths of policy.Baseline to a filesystem_policy that is present.
	Explicit bool
	// Complete refuses a sandbox under landlock.compatibility: hard_requirement that lacks
	// a path of the policy.
	Complete bool
	// Enforce is true if an endpoint without enforcement enforces its rules.
	Enforce bool
	// Allow names fields that would otherwise be refused.
	Allow []string
	// Bundle is the container's file of trusted certificates, which the environment
	// names; empty without one.
	Bundle string
	// TrustMounts show the container its certificate stores with the sandbox's CA.
	// TrustPaths are bundles and their folders, which every process may read.
	TrustMounts []specs.Mount
	TrustPaths  []string
	// NoProxy are the container's own names and addresses, which programs reach without the
	// proxy, beside localhost and the loopback.
	NoProxy []string
	// Placeholders are variables, NAME=VALUE, of the providers' credentials.
	Placeholders []string
	// Env are further variables, NAME=VALUE, for processes that lack them.
	Env []string
	// Tracing is the operator's setting of tracing. The zero value is TracingAuto.
	Tracing Tracing
}

// Plan is what is done to a container's processes.
type Plan struct {
	Ruleset landlock.Ruleset `json:"landlock"`
	// User and Group replace the image's when the policy names them.
	User  *uint32 `json:"user,omitempty"`
	Group *uint32 `json:"group,omitempty"`
	// Placeholders take the place of variables in which a workload expects a
	// credential, whatever they held: the value is the proxy's alone.
	Placeholders []string `json:"placeholders,omitempty"`
	// Env is added to every process's environment where it has no such variable.
	Env []string `json:"env"`
	// Mounts are added to the container's.
	Mounts []specs.Mount `json:"mounts"`
	// Tracing lets programs trace each other and write into each other's memory; see
	// mayTrace. Without it every proc of the container is read-only (keepProc), because
	// /proc/PID/mem gives the same access as ptrace. It holds for the sandbox's life.
	Tracing bool `json:"tracing,omitempty"`
	// MaskedPaths and ReadonlyPaths are added to those of config.json, which lacks them.
	MaskedPaths   []string `json:"masked_paths,omitempty"`
	ReadonlyPaths []string `json:"readonly_paths,omitempty"`
	// TakenCapabilities are the capabilities that config.json gives the first process
	// and the sandbox takes away.
	TakenCapabilities []string `json:"taken_capabilities,omitempty"`
	// Accepted are the refusals that Options.Allow turned off: FIELD: REASON.
	Accepted []string `json:"accepted,omitempty"`
}

// Fields are the names that Options.Allow can have: the fields of config.json that are
// refused or completed for some values.
var Fields = []string{
	"hooks.startContainer", fieldMasked, "linux.namespaces.ipc", "linux.namespaces.mount", "linux.namespaces.network",
	"linux.namespaces.pid", fieldReadonly, "linux.resources.devices", "linux.sysctl", fieldMounts, "root.path",
}

// checkAllow fails for a name that accepts nothing: the operator would take the field
// for accepted.
func checkAllow(allow []string) error {
	for _, name := range allow {
		if !slices.Contains(Fields, name) {
			return fmt.Errorf("operator configuration: allow: %q is no field that a sandbox is refused for, want some of %s", name, strings.Join(Fields, ", "))
		}
	}
	return nil
}

// New makes the plan for spec under pol.
func New(spec *specs.Spec, pol *policy.Policy, o Options) (*Plan, error) {
	if spec.Linux == nil || spec.Process == nil || spec.Root == nil {
		return nil, fmt.Errorf("config.json: root, linux and process are required for a sandbox")
	}
	if err := checkAllow(o.Allow); err != nil {
		return nil, err
	}
	accepted, err := judge(spec, o.Allow)
	if err != nil {
		return nil, err
	}
	if o.LandlockABI < o.Floor {
		return nil, fmt.Errorf("the kernel's Landlock ABI is %d, the operator's landlock.floor is %d: boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,… or lower the floor", o.LandlockABI, o.Floor)
	}
	if pol.Landlock.Hard && o.LandlockABI == 0 {
		return nil, errors.New("the kernel has no Landlock, and landlock.compatibility of the policy is hard_requirement: boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,…")
	}
	tracing, err := mayTrace(pol, o)
	if err != nil {
		return nil, err
	}
	allowed := rules(pol, spec.Process.Cwd, o.Explicit)
	if !tracing {
		keepProc(allowed, spec.Mounts)
	}
	pl := &Plan{
		Tracing: tracing, User: pol.Process.User, Group: pol.Process.Group,
		Env: slices.Concat(environment(o.Bundle, o.NoProxy), o.Env), Placeholders: o.Placeholders, Accepted: accepted,
		Mounts: o.TrustMounts,
	}
	pl.TakenCapabilities = pl.taken(spec.Process)
	pl.addMasks(spec, o.Allow)
	for _, p := range o.TrustPaths {
		allowed = append(allowed, landlock.Rule{Path: p, Access: landlock.ReadOnly, Origin: landlock.OriginRuntime})
	}
	pl.Ruleset = landlock.New(o.LandlockABI, allowed, scopes(spec))
	pl.Ruleset.Hard, pl.Ruleset.Complete = pol.Landlock.Hard, pol.Landlock.Hard && o.Complete
	return pl, nil
}

// scopes returns the scopes that add something to the container's namespaces: a namespace
// that config.json lacks is the host's, and a namespace with a path may have other
// processes in it.
func scopes(spec *specs.Spec) (s landlock.Scopes) {
	private := func(t specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t && n.Path == "" })
	}
	if !private(specs.NetworkNamespace) {
		s |= landlock.ScopeAbstractSockets
	}
	if !private(specs.PIDNamespace) {
		s |= landlock.ScopeSignals
	}
	return s
}

// proxyURL is the proxy as clients in the container name it.
var proxyURL = fmt.Sprintf("http://127.0.0.1:%d", proxyapi.PortProxy)

// noProxy lists the destinations that programs of every sandbox reach without the proxy. It
// has addresses beside prefixes, because some programs do not read prefixes, and ::1 also
// in brackets, because some compare it so.
const noProxy = "127.0.0.1,localhost,::1," + policy.RouterHost + ",127.0.0.0/8,0.0.0.0,[::1]"

// environment are the variables by which programs find the proxy and the
// sandbox's CA. Without them they are led to the proxy all the same; with them
// they get its refusals as HTTP. Each of the CA variables replaces or extends
// what its program trusts by the image's own certificates and the CA.
func environment(bundle string, own []string) []string {
	var out []string
	for _, v := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "grpc_proxy"} {
		out = append(out, v+"="+proxyURL)
	}
	usual := strings.Split(noProxy, ",")
	direct := strings.Join(append(usual, without(own, usual)...), ",")
	out = append(out, "NO_PROXY="+direct, "no_proxy="+direct)
	if bundle == "" {
		return out
	}
	for _, v := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "PIP_CERT",
		"NODE_EXTRA_CA_CERTS", "DENO_CERT",
	} {
		out = append(out, v+"="+bundle)
	}
	return append(out, "UV_NATIVE_TLS=1")
}

// replaced is env with the variables of by as they are there.
func replaced(env, by []string) []string {
	names := map[string]bool{}
	for _, e := range by {
		name, _, _ := strings.Cut(e, "=")
		names[name] = true
	}
	out := slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return names[name]
	})
	return append(out, by...)
}

// withEnvironment adds what of more is not set in env: the user's word stays. Git's
// settings are numbered, and counted: they are the user's or ours.
func withEnvironment(env, more []string) []string {
	has := func(name string) bool {
		return slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	}
	out := slices.Clone(env)
	for _, e := range more {
		name, _, _ := strings.Cut(e, "=")
		if !has(name) && (!strings.HasPrefix(name, "GIT_CONFIG_") || !has("GIT_CONFIG_COUNT")) {
			out = append(out, e)
		}
	}
	return out
}

// rules returns the paths that a container in cwd may use under pol.
func rules(pol *policy.Policy, cwd string, explicit bool) []landlock.Rule {
	f := pol.Filesystem
	var out []landlock.Rule
	add := func(paths []string, a landlock.Access, from landlock.Origin) {
		for _, p := range paths {
			out = append(out, landlock.Rule{Path: p, Access: a, Origin: from})
		}
	}
	add(f.ReadOnly, landlock.ReadOnly, landlock.OriginPolicy)
	add(f.ReadWrite, landlock.ReadWrite, landlock.OriginPolicy)
	if f.IncludeWorkdir && path.Clean("/"+cwd) != "/" {
		add([]string{cwd}, landlock.ReadWrite, landlock.OriginPolicy)
	}
	read, write := baseline(pol, explicit)
	add(read, landlock.ReadOnly, landlock.OriginBaseline)
	add(write, landlock.ReadWrite, landlock.OriginBaseline)
	if len(out) == 0 && !f.IncludeWorkdir {
		// As in OpenShell a policy without any path does not restrict files. A domain
		// still keeps processes apart.
		add([]string{"/"}, landlock.ReadWrite, landlock.OriginPolicy)
	}
	add(devices, landlock.ReadWrite, landlock.OriginRuntime)
	return out
}

// baseline returns policy.Baseline without the devices of every sandbox, or nothing if
// explicit is set and the policy has a filesystem_policy.
func baseline(pol *policy.Policy, explicit bool) (read, write []string) {
	if explicit && pol.Filesystem.Line != 0 {
		return nil, nil
	}
	read, write = pol.Baseline()
	device := func(name string) bool { return slices.Contains(devices, name) }
	return slices.DeleteFunc(read, device), slices.DeleteFunc(write, device)
}

// addMasks adds the masks that config.json lacks, except for a field in allow.
func (pl *Plan) addMasks(spec *specs.Spec, allow []string) {
	mask, protect := unmasked(spec)
	for _, list := range []struct {
		field string
		paths []string
		to    *[]string
	}{{fieldMasked, mask, &pl.MaskedPaths}, {fieldReadonly, protect, &pl.ReadonlyPaths}} {
		switch {
		case len(list.paths) == 0:
		case slices.Contains(allow, list.field):
			pl.Accepted = append(pl.Accepted, list.field+": it lacks "+strings.Join(list.paths, ", "))
		default:
			*list.to = list.paths
		}
	}
}

// judge returns the first refusal of spec that allow does not turn off as an error.
// Otherwise it returns the refusals that allow turns off.
func judge(spec *specs.Spec, allow []string) (accepted []string, err error) {
	for _, r := range refusals(spec) {
		if !slices.Contains(allow, r.Field) {
			return nil, &r
		}
		accepted = append(accepted, r.Field+": "+r.Reason)
	}
	return accepted, nil
}

// refusals returns the parts of spec that a sandbox is refused for.
func refusals(spec *specs.Spec) (out []Refusal) {
	has := func(t specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
	}
	for _, ns := range []struct {
		t    specs.LinuxNamespaceType
		name string
	}{{specs.NetworkNamespace, "network"}, {specs.PIDNamespace, "pid"}, {specs.IPCNamespace, "ipc"}, {specs.MountNamespace, "mount"}} {
		if !has(ns.t) {
			out = append(out, Refusal{"linux.namespaces." + ns.name, "the host's " + ns.name + " namespace would be shared"})
		}
	}
	if h := spec.Hooks; h != nil && len(h.StartContainer) > 0 {
		out = append(out, Refusal{"hooks.startContainer", "a program would run in the container before it is confined"})
	}
	if r := spec.Linux.Resources; r != nil {
		for i, d := range r.Devices {
			if everyDevice(d) {
				out = append(out, Refusal{"linux.resources.devices", fmt.Sprintf("linux.resources.devices[%d] allows every device (--privileged)", i)})
			}
		}
	}
	return slices.Concat(out, refusedMounts(spec.Mounts), refusedKernelMounts(spec.Mounts), refusedSysctls(spec))
}

// everyDevice reports whether d allows all devices, or all of one type. The type a allows
// every device, and its numbers do not count. Access m alone is accepted: engines let a
// container make the node of any device, which does not open it.
func everyDevice(d specs.LinuxDeviceCgroup) bool {
	if !d.Allow || d.Type == "" || d.Type == "a" {
		return d.Allow
	}
	return (d.Major == nil || *d.Major < 0) && d.Access != "m"
}

// Process returns a copy of p as the sandbox runs it: fewer capabilities,
// no_new_privs, the policy's user. Init and every exec go through it.
func (pl *Plan) Process(p *specs.Process) *specs.Process {
	out := *p
	out.NoNewPrivileges = true
	out.Env = withEnvironment(replaced(p.Env, pl.Placeholders), pl.Env)
	if pl.User != nil {
		out.User.UID, out.User.AdditionalGids = *pl.User, nil
	}
	if pl.Group != nil {
		out.User.GID = *pl.Group
	}
	if pl.User != nil || p.Capabilities != nil {
		out.Capabilities = &specs.LinuxCapabilities{}
		for i, set := range capabilitySets(p.Capabilities) {
			*capabilitySets(out.Capabilities)[i] = slices.DeleteFunc(slices.Clone(*set), pl.takes)
		}
	}
	return &out
}

// takes reports whether no process of the sandbox keeps a capability.
func (pl *Plan) takes(capability string) bool {
	return pl.User != nil || slices.Contains(Removed, capability)
}

// taken returns the capabilities that p has and that the sandbox takes away.
func (pl *Plan) taken(p *specs.Process) (out []string) {
	for _, set := range capabilitySets(p.Capabilities) {
		for _, c := range *set {
			if pl.takes(c) && !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// capabilitySets returns the sets of c; five empty ones if c is nil.
func capabilitySets(c *specs.LinuxCapabilities) []*[]string {
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	return []*[]string{&c.Bounding, &c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient}
}

// launchCalls are the system calls launch needs beside an ordinary program's.
var launchCalls = []string{
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "prctl", "close_range", "execve",
}

// Spec returns a copy of s with what the sandbox changes outside its process:
// an allow-list profile of the engine's must not stop launch.
func (pl *Plan) Spec(s *specs.Spec) *specs.Spec {
	out := *s
	out.Process = pl.Process(s.Process)
	out.Mounts = append(slices.Clone(s.Mounts), pl.Mounts...)
	if !pl.Tracing {
		for i, m := range out.Mounts {
			if isProc(m) {
				out.Mounts[i].Options = asReadOnly(m.Options)
			}
		}
	}
	l := *s.Linux
	l.MaskedPaths = slices.Concat(l.MaskedPaths, pl.MaskedPaths)
	l.ReadonlyPaths = slices.Concat(l.ReadonlyPaths, pl.ReadonlyPaths)
	if l.Seccomp != nil && l.Seccomp.DefaultAction != specs.ActAllow {
		sec := *l.Seccomp
		sec.Syscalls = append(slices.Clone(sec.Syscalls), specs.LinuxSyscall{Names: launchCalls, Action: specs.ActAllow})
		l.Seccomp = &sec
	}
	out.Linux = &l
	return &out
}
