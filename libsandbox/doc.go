// SPDX-License-Identifier: Apache-2.0

// Package libsandbox makes containers that are sandboxes: their programs can only read,
// write and reach what a policy allows.
//
// It is a library for OCI runtimes. Each function is one verb of a runtime: [Create],
// [Start], [Exec], [Pause], [Checkpoint] and [Delete]. A container is identified by the
// runtime's root folder and its ID; what a later verb needs is kept below that folder
// (package state), so each verb can run in a process of its own:
//
//	status, err := libsandbox.Create(libsandbox.CreateOptions{
//		Container: container.Config{Root: root, ID: id, Spec: spec},
//		Process:   container.ProcessConfig{Action: container.CreateInit},
//	})
//	…
//	err = libsandbox.Start(root, id, "")
//	…
//	err = libsandbox.Delete(root, id, false)
//
// Create takes six steps. Each step is one function, in a file of its name:
//
//	resolve  which configuration and which policy apply
//	check    refuses a config.json that gives control of the host, before anything is made
//	attach   locks credentials and prepares the proxy's document (package attach)
//	plan     decides what is done to the container's processes (package plan)
//	network  captures the network namespace and starts the proxy, while the rest goes on
//	launch   makes the container, whose process starts through openshell-launch
//
// The code that runs in the middle of the last step, after the container's namespaces exist
// and before its first program, is in inside.go. An error in any step ends in no container,
// no proxy and no state.
//
// Three parts confine a container. In the network namespace, rules lead every connection
// to the proxy (package netns), which runs outside the container and judges it.
// openshell-launch applies Landlock and seccomp inside (package landlock, package seccomp)
// before it executes the user's program. The plan takes capabilities away and masks parts
// of proc and sysfs. A process of [Exec] is confined in the same way as the first one.
//
// The package does not judge connections (package policy does, in the proxy), does not
// make images, root filesystems or networks (engines do), and does not protect the host
// from its own root. If the operator's configuration says `policy: none`, containers are
// plain runc's.
package libsandbox
