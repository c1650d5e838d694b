// SPDX-License-Identifier: Apache-2.0

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

// Removed are the capabilities that no process of a sandbox keeps, even if the engine
// grants them. NET_RAW is one of them because since Linux 5.17 it allows SO_MARK, and a
// packet with the proxy's mark passes as the proxy's own.
var Removed = []string{
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT",
	"CAP_SYS_TIME", "CAP_BPF", "CAP_PERFMON", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_AUDIT_CONTROL", "CAP_SYSLOG",
	"CAP_CHECKPOINT_RESTORE", "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
}

// devices can be read and written in every sandbox: the default devices of runtime-spec
// and the terminal. No data leaves the sandbox through them.
var devices = []string{
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm",
}

// stateFolder is the name of the folder, below the runtime's root, in which the runtime
// keeps the control sockets of sandboxes and the keys of their CAs.
const stateFolder = "@sandbox"

// FieldNetwork is the field of config.json whose refusal an operator cannot accept: the
// host's network namespace cannot be captured for one container.
const FieldNetwork = "linux.namespaces.network"

// Refusal is the error for a part of config.json that no sandbox may have.
type Refusal struct {
	// Field is the place in config.json, and the name under `allow` in the operator's
	// configuration, see [Fields].
	Field string
	// Reason says what is wrong with the value.
	Reason string
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

// Options are the inputs of a plan besides the spec and the policy. They come from the
// kernel, from the operator's configuration, and from the earlier steps of a create.
type Options struct {
	// LandlockABI is the version of the kernel's Landlock, 0 if the kernel has none. With
	// 0, files are not restricted; New returns an error if LandlockFloor or the policy
	// (landlock.compatibility: hard_requirement) demands Landlock.
	LandlockABI int
	// LandlockFloor is the lowest LandlockABI that the operator accepts (landlock.floor).
	// New returns an error for a lower one. The zero value accepts every kernel.
	LandlockFloor int
	// OnlyListedPaths makes a policy's filesystem_policy complete: the paths of
	// policy.Baseline are not added to it (filesystem_baseline: explicit). They are still
	// added to a policy without filesystem_policy. The zero value adds them.
	OnlyListedPaths bool
	// RequireAllPaths makes launch fail if the container lacks a path that a policy with
	// landlock.compatibility: hard_requirement lists (landlock.missing_paths: fail). The
	// zero value skips the path.
	RequireAllPaths bool
	// EnforceByDefault says that an endpoint without enforcement blocks what its rules
	// refuse (unspecified_enforcement: enforce). It only affects [Plan.Warnings]. The zero
	// value means audit.
	EnforceByDefault bool
	// Allow lists fields of config.json whose refusals the operator accepts. A name that is
	// not in [Fields] is an error. The zero value accepts none.
	Allow []string
	// CABundle is the path in the container of its file of trusted certificates. The
	// environment's variables for CA files name it. The zero value sets none of them.
	CABundle string
	// TrustMounts are mounts that show the container its certificate stores with the
	// sandbox's CA. TrustPaths are the bundles among them, or their folders: every process
	// may read these. The zero values add nothing.
	TrustMounts []specs.Mount
	TrustPaths  []string
	// NoProxy lists names and addresses of the container itself. Programs reach them
	// without the proxy, as they do localhost and the loopback. The zero value adds none.
	NoProxy []string
	// Placeholders are variables, NAME=VALUE, that stand for credentials of providers. They
	// replace variables of the same name. The zero value adds none.
	Placeholders []string
	// Env are further variables, NAME=VALUE, for processes that do not have them. The zero
	// value adds none.
	Env []string
	// Tracing is the operator's setting. The zero value is [TracingAuto]. New returns an
	// error for [TracingAllow] on a kernel without Landlock.
	Tracing Tracing
}

// Plan lists the changes to a container and its processes. It is kept in the sandbox's state,
// and every exec follows it.
type Plan struct {
	// Ruleset is the Landlock ruleset that launch applies.
	Ruleset landlock.Ruleset `json:"landlock"`
	// User and Group are the numbers that the policy sets. nil keeps the image's.
	User  *uint32 `json:"user,omitempty"`
	Group *uint32 `json:"group,omitempty"`
	// Placeholders are variables, NAME=VALUE, that replace variables of the same name, in
	// which a workload expects a credential. Only the proxy has the credential itself.
	Placeholders []string `json:"placeholders,omitempty"`
	// Env are variables, NAME=VALUE, that are added to a process which does not have them.
	Env []string `json:"env"`
	// Mounts are added to the mounts of config.json.
	Mounts []specs.Mount `json:"mounts"`
	// Tracing lets programs trace each other and write into each other's memory; see
	// mayTrace. Without it every proc of the container is read-only (keepProc), because
	// /proc/PID/mem gives the same access as ptrace. It does not change while the sandbox
	// exists.
	Tracing bool `json:"tracing,omitempty"`
	// MaskedPaths and ReadonlyPaths are added to those of config.json.
	MaskedPaths   []string `json:"masked_paths,omitempty"`
	ReadonlyPaths []string `json:"readonly_paths,omitempty"`
	// TakenCapabilities are the capabilities that config.json gives the first process and
	// that the sandbox takes away.
	TakenCapabilities []string `json:"taken_capabilities,omitempty"`
	// Accepted are the refusals that Options.Allow turned off, as FIELD: REASON.
	Accepted []string `json:"accepted,omitempty"`
}

// Fields are the names that Options.Allow can have. They are the fields of config.json for
// which some values are refused or changed.
var Fields = []string{
	"hooks.startContainer", fieldMasked, "linux.namespaces.ipc", "linux.namespaces.mount", "linux.namespaces.network",
	"linux.namespaces.pid", fieldReadonly, "linux.resources.devices", "linux.sysctl", fieldMounts, "root.path",
}

// checkAllow returns an error for a name that accepts nothing. Without the error, the
// operator would believe that the field is accepted.
func checkAllow(allow []string) error {
	for _, name := range allow {
		if !slices.Contains(Fields, name) {
			return fmt.Errorf("operator configuration: allow: %q is no field that a sandbox is refused for, want some of %s", name, strings.Join(Fields, ", "))
		}
	}
	return nil
}

// Check returns the error that [New] would return, and makes no plan. Options that only
// add something to the container may be missing. So a create can refuse what cannot be a
// sandbox before it makes anything for it.
func Check(spec *specs.Spec, pol *policy.Policy, o Options) error {
	_, _, err := check(spec, pol, o)
	return err
}

// check returns the refusals that o.Allow turns off, and whether programs may trace each
// other.
func check(spec *specs.Spec, pol *policy.Policy, o Options) (accepted []string, tracing bool, err error) {
	if spec.Linux == nil || spec.Process == nil || spec.Root == nil {
		return nil, false, errors.New("config.json: root, linux and process are required for a sandbox")
	}
	if err := checkAllow(o.Allow); err != nil {
		return nil, false, err
	}
	if accepted, err = accept(spec, o.Allow); err != nil {
		return nil, false, err
	}
	if o.LandlockABI < o.LandlockFloor {
		return nil, false, fmt.Errorf("the kernel's Landlock ABI is %d, the operator's landlock.floor is %d: boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,… or lower the floor", o.LandlockABI, o.LandlockFloor)
	}
	if pol.Landlock.Hard && o.LandlockABI == 0 {
		return nil, false, errors.New("the kernel has no Landlock, and landlock.compatibility of the policy is hard_requirement: boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,…")
	}
	tracing, err = mayTrace(pol, o)
	return accepted, tracing, err
}

// New makes the plan for spec under pol. It changes neither.
func New(spec *specs.Spec, pol *policy.Policy, o Options) (*Plan, error) {
	accepted, tracing, err := check(spec, pol, o)
	if err != nil {
		return nil, err
	}
	allowed := rules(pol, spec.Process.Cwd, o.OnlyListedPaths)
	if !tracing {
		keepProc(allowed, spec.Mounts)
	}
	pl := &Plan{
		Tracing: tracing, User: pol.Process.User, Group: pol.Process.Group,
		Env: slices.Concat(environment(o.CABundle, o.NoProxy), o.Env), Placeholders: o.Placeholders, Accepted: accepted,
		Mounts: o.TrustMounts,
	}
	pl.TakenCapabilities = pl.taken(spec.Process)
	pl.addMasks(spec, o.Allow)
	for _, p := range o.TrustPaths {
		allowed = append(allowed, landlock.Rule{Path: p, Access: landlock.ReadOnly, Origin: landlock.OriginRuntime})
	}
	pl.Ruleset = landlock.New(o.LandlockABI, allowed, scopes(spec))
	pl.Ruleset.Hard, pl.Ruleset.Complete = pol.Landlock.Hard, pol.Landlock.Hard && o.RequireAllPaths
	return pl, nil
}

// scopes returns the Landlock scopes that restrict more than the container's namespaces do.
// A container without a namespace of its own is in the host's namespace, and a namespace with
// a path can have processes of other containers in it.
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

// proxyURL is the URL of the proxy for clients in the container.
var proxyURL = fmt.Sprintf("http://127.0.0.1:%d", proxyapi.PortProxy)

// noProxy lists the destinations that programs of every sandbox reach without the proxy. It
// has addresses in addition to prefixes, because some programs do not understand prefixes,
// and ::1 also in brackets, because some programs compare it in that spelling.
const noProxy = "127.0.0.1,localhost,::1," + policy.RouterHost + ",127.0.0.0/8,0.0.0.0,[::1]"

// environment returns the variables by which programs find the proxy and the sandbox's CA.
// A program that ignores them reaches the proxy all the same, because its connections are
// redirected; a program that uses them gets refusals as HTTP responses. bundle has the
// image's certificates and the sandbox's CA. Each of the variables that name it replaces
// or extends the certificates that a program trusts. own are names and addresses of the
// container itself.
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

// replaced returns env with the variables in by, which replace variables of the same name.
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

// withEnvironment returns env with the variables of more that it does not set. The settings
// of git (GIT_CONFIG_*) are numbered and counted. If the user has settings of git, none are
// added.
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
func rules(pol *policy.Policy, cwd string, onlyListed bool) []landlock.Rule {
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
	read, write := baseline(pol, onlyListed)
	add(read, landlock.ReadOnly, landlock.OriginBaseline)
	add(write, landlock.ReadWrite, landlock.OriginBaseline)
	if len(out) == 0 && !f.IncludeWorkdir {
		// As in OpenShell, a policy without any path does not restrict files. The Landlock
		// domain still keeps processes from tracing out of it.
		add([]string{"/"}, landlock.ReadWrite, landlock.OriginPolicy)
	}
	add(devices, landlock.ReadWrite, landlock.OriginRuntime)
	return out
}

// baseline returns policy.Baseline without the devices of every sandbox. It returns nothing
// if onlyListed is set and the policy has a filesystem_policy.
func baseline(pol *policy.Policy, onlyListed bool) (read, write []string) {
	if onlyListed && pol.Filesystem.Line != 0 {
		return nil, nil
	}
	read, write = pol.Baseline()
	device := func(name string) bool { return slices.Contains(devices, name) }
	return slices.DeleteFunc(read, device), slices.DeleteFunc(write, device)
}

// addMasks adds the masks that config.json lacks, except for a field that allow names.
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

// accept returns the refusals of spec that allow turns off, as FIELD: REASON. If there is a
// refusal that allow does not turn off, accept returns the first of them as its error.
func accept(spec *specs.Spec, allow []string) (accepted []string, err error) {
	for _, r := range refusals(spec) {
		if !slices.Contains(allow, r.Field) {
			return nil, &r
		}
		accepted = append(accepted, r.Field+": "+r.Reason)
	}
	return accepted, nil
}

// refusals returns the parts of spec that no sandbox may have.
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

// everyDevice reports whether d allows all devices, or all devices of one type. The type
// "a" allows every device; its numbers have no meaning. The access "m" alone is accepted:
// engines let a container make the node of any device, which does not open the device.
func everyDevice(d specs.LinuxDeviceCgroup) bool {
	if !d.Allow || d.Type == "" || d.Type == "a" {
		return d.Allow
	}
	return (d.Major == nil || *d.Major < 0) && d.Access != "m"
}

// Process returns a copy of p as the sandbox runs it: with fewer capabilities, with
// no_new_privs, and as the policy's user. It is used for the first process and for every
// exec.
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

// takes reports whether the sandbox takes a capability away from all processes.
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

// capabilitySets returns the five sets of c, which are empty if c is nil.
func capabilitySets(c *specs.LinuxCapabilities) []*[]string {
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	return []*[]string{&c.Bounding, &c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient}
}

// launchCalls are the system calls of launch that an ordinary program does not use.
var launchCalls = []string{
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "prctl", "close_range", "execve",
}

// Spec returns a copy of s with all changes of the plan: the process (see [Plan.Process]),
// mounts and masks. It also allows launchCalls in an engine's seccomp profile, which would
// otherwise stop launch.
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
