// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"slices"
	"strings"

	"openshell.dev/runtime/internal/pathname"
)

// EngineFolder is a folder of the host in which a container engine, an agent or this program
// keeps sockets, keys or state. A mount of the folder, or of a folder above it, gives a
// sandbox control of the host.
type EngineFolder struct {
	// Path is absolute and clean.
	Path string
	// Gives are patterns, relative to Path, of the files and folders that engines mount
	// into containers. An element of a pattern matches as in path.Match. A last element **
	// matches the folder and everything below it.
	Gives []string
}

// EngineFolders are the folders of engines at their default places. /var/run is not listed:
// it is a link to /run on every distribution that these engines support. /run/user has the
// sockets of rootless engines, D-Bus, gpg-agent and keyrings.
var EngineFolders = []EngineFolder{
	{Path: "/run/docker"},
	{Path: "/run/docker-containerd"},
	{Path: "/run/podman"},
	{Path: "/run/libpod"},
	{Path: "/run/crio"},
	{Path: "/run/buildkit"},
	{Path: "/run/nri"},
	{Path: "/run/openshell", Gives: []string{"@stage/hosts", "@stage/resolv.conf"}},
	{Path: "/run/user"},
	{Path: "/run/dbus"},
	{Path: "/run/systemd", Gives: []string{"resolve/resolv.conf", "resolve/stub-resolv.conf"}},
	{Path: "/run/lxd"},
	{Path: "/run/incus"},
	{Path: "/run/libvirt"},
	{Path: "/run/containers", Gives: storageGives},
	{Path: "/run/containerd", Gives: criGives},
	{Path: "/run/k3s", Gives: in("containerd", criGives)},
	{Path: "/run/k0s", Gives: in("containerd", criGives)},
	{Path: "/var/lib/containers", Gives: slices.Concat(storageGives, []string{"storage/volumes/*/_data/**"})},
	{Path: "/var/lib/crio"},
	{Path: "/var/lib/containerd", Gives: criGives},
	{Path: "/var/lib/rancher", Gives: slices.Concat(
		in("k3s/agent/containerd", criGives), in("rke2/agent/containerd", criGives), []string{"k3s/storage/*/**"})},
	{Path: "/var/lib/k0s", Gives: slices.Concat(in("containerd", criGives), in("kubelet", kubeletGives))},
	{Path: "/var/snap/microk8s", Gives: slices.Concat(
		in("common/var/lib/containerd", criGives), in("common/run/containerd", criGives), in("common/var/lib/kubelet", kubeletGives),
		[]string{"common/default-storage/*/**"})},
	{Path: "/var/lib/kubelet", Gives: kubeletGives},
	// With userns-remap Docker keeps its state in a folder UID.GID.
	{Path: "/var/lib/docker", Gives: slices.Concat(dockerGives, in("[0-9]*.[0-9]*", dockerGives))},
	{Path: "/var/lib/nerdctl", Gives: []string{
		"*/volumes/*/*/_data/**", "*/etchosts/*/*/hosts",
		"*/containers/*/*/resolv.conf", "*/containers/*/*/hostname", "*/containers/*/*/hosts",
	}},
	{Path: "/var/lib/lxd"},
	{Path: "/var/snap/lxd"},
	{Path: "/var/lib/incus"},
	{Path: "/var/lib/openshell"},
}

var (
	// criGives are the files of a pod in the folders of containerd's CRI plugin.
	criGives = in("io.containerd.*", []string{
		"sandboxes/*/resolv.conf", "sandboxes/*/hosts", "sandboxes/*/hostname", "sandboxes/*/shm/**",
		"containers/*/volumes/*/**", "image-volumes/*/*/**",
	})
	// kubeletGives are a pod's volumes, its hosts file and a container's termination
	// log, pods/UID/containers/NAME/ID.
	kubeletGives = []string{
		"pods/*/volumes/*/*/**", "pods/*/volume-subpaths/*/*/*/**", "pods/*/etc-hosts", "pods/*/containers/*/*",
	}
	// storageGives are the files of one container of Podman or CRI-O.
	storageGives = in("storage/*-containers/*/userdata", []string{
		"resolv.conf", "hosts", "hostname", ".containerenv", "passwd", "group", "localtime", "shm/**", "secrets/**", "run/**",
	})
	// dockerGives are named volumes, volumes of plugins, the files of one container (mounts
	// has shm, secrets and configs), the files of BuildKit for all builds, and the mounts
	// that Docker makes of a volume-subpath. Such a mount shows a file or folder of a
	// volume, and is judged by the place of that. Image mounts (overlay2/*/merged) are not
	// among them, because root file systems of other containers have the same paths.
	dockerGives = []string{
		"tmp/safe-mount*/**",
		"volumes/*/_data/**", "plugins/*/propagated-mount/*/**",
		"containers/*/resolv.conf", "containers/*/hosts", "containers/*/hostname", "containers/*/mounts/**",
		"buildkit/executor/hosts", "buildkit/executor/hosts.*", "buildkit/executor/resolv.conf", "buildkit/executor/resolv-host.conf",
	}
)

// in returns the patterns with a folder before each of them.
func in(folder string, patterns []string) []string {
	out := make([]string, len(patterns))
	for i, p := range patterns {
		out[i] = folder + "/" + p
	}
	return out
}

// Holds reports whether a mount of source gives a sandbox the folder f, or a part of it that
// engines do not mount themselves. at is where f is. Both paths must be clean. A refusal
// ignores case: on a file system that folds case, the path of an opened file has the
// caller's spelling.
func (f EngineFolder) Holds(source, at string) bool {
	if folded, where := strings.ToLower(source), strings.ToLower(at); pathname.Below(where, folded) || !pathname.Below(folded, where) {
		return pathname.Below(where, folded)
	}
	rest, ok := strings.CutPrefix(source, at+"/")
	return !ok || !slices.ContainsFunc(f.Gives, func(p string) bool { return gives(p, rest) })
}

// gives reports whether file matches a pattern of EngineFolder.Gives.
func gives(pattern, file string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(file, "/")
	if n := len(want) - 1; want[n] == "**" {
		if len(have) < n {
			return false
		}
		want, have = want[:n], have[:n]
	}
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// engineSockets are names of sockets that give every client control of the host. The source
// of a mount with one of these names is refused by its name alone.
var engineSockets = []string{
	"docker.sock", "docker.raw.sock", "dockershim.sock", "cri-dockerd.sock", "containerd.sock", "containerd.sock.ttrpc", "containerd-debug.sock",
	"crio.sock", "podman.sock", "buildkitd.sock", "kubelet.sock", "nri.sock",
}

// busSockets are patterns of names of the sockets of D-Bus, systemd, snapd and libvirt.
var busSockets = []string{
	"system_bus_socket", "session_bus_socket", "bus", "dbus-*", "io.systemd.*", "snapd*.socket", "libvirt-sock*", "virt*-sock*",
}

// agentSockets are patterns of names of agents' sockets. Such an agent uses a person's keys
// for every client.
var agentSockets = []string{"agent.*", "openssh_agent", "ssh-agent*", "*ssh-auth*", "s.gpg-agent*"}

// socketFolders are patterns of names of folders that have nothing but sockets of engines,
// service managers, agents and terminals.
var socketFolders = []string{
	"ssh-*", "keyring", "gcr", "gnupg", ".gnupg", ".1password", "systemd", "dbus", "tmux-*", "device-plugins", "plugins_registry", "pod-resources",
}

// KnownSockets are the usual paths of sockets of engines, buses and agents, relative to a
// mounted folder. That folder can be the runtime directory of the machine or of a user, a
// home directory, or the folder of such a socket.
var KnownSockets = []string{
	"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "buildkitd.sock", "kubelet.sock", "cri-dockerd.sock", "dockershim.sock",
	"docker/docker.sock", "containerd/containerd.sock", "crio/crio.sock", "podman/podman.sock", "buildkit/buildkitd.sock", "k3s/containerd/containerd.sock",
	"nri/nri.sock", "nri.sock", ".docker/run/docker.sock", ".docker/desktop/docker.sock", ".colima/default/docker.sock", ".rd/docker.sock",
	"bus", "dbus/system_bus_socket", "system_bus_socket", "systemd/private", "private/io.systemd.Manager", "snapd.socket", "libvirt/libvirt-sock", "libvirt-sock",
	"S.gpg-agent", "S.gpg-agent.ssh", "gnupg/S.gpg-agent", "gnupg/S.gpg-agent.ssh", ".gnupg/S.gpg-agent", ".gnupg/S.gpg-agent.ssh",
	"keyring/ssh", "gcr/ssh", "ssh-agent.sock", "ssh-agent", "openssh_agent", ".1password/agent.sock", ".ssh/agent.sock",
}

// IsEngineSocket reports whether the socket at an absolute path belongs to an engine, a
// service manager, an agent or this program, judged by its name or the name of its folder.
func IsEngineSocket(socket string) bool {
	if IsState(socket) {
		return true
	}
	socket = strings.ToLower(socket)
	base, folder := path.Base(socket), path.Base(path.Dir(socket))
	return matches(engineSockets, base) || matches(busSockets, base) || matches(agentSockets, base) || matches(socketFolders, folder)
}

// matches reports whether a name matches one of the patterns.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// IsState reports whether file is the folder of sandboxes' state, or is in it.
func IsState(file string) bool { return slices.Contains(strings.Split(file, "/"), stateFolder) }

// LeadsOut returns the reason why a mount of source gives the sandbox an engine's socket or
// folder, or a file system of the kernel, or "". It judges only the text of the path,
// because a plan does not look at the machine. Package libsandbox judges the opened file as
// well.
func LeadsOut(source string) string {
	source = path.Clean(source)
	folded := strings.ToLower(source)
	if rest, ok := strings.CutPrefix(folded, "/var/run"); ok && (rest == "" || rest[0] == '/') {
		source, folded = path.Clean("/run"+source[len("/var/run"):]), "/run"+rest
	}
	base := path.Base(folded)
	if matches(engineSockets, base) || strings.HasPrefix(base, "agent.") && strings.Contains(folded, "/ssh-") {
		return "the socket of an engine or an agent"
	}
	if IsState(source) {
		return "the state of sandboxes"
	}
	if folded == "/dev" {
		return "the host's devices"
	}
	for _, f := range kernelFolders {
		if pathname.Below(folded, f) {
			return "part of the kernel's " + f
		}
	}
	for _, f := range EngineFolders {
		if f.Holds(source, f.Path) {
			return "at, above or in " + f.Path
		}
	}
	return ""
}
