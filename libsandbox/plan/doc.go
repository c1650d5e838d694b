// SPDX-License-Identifier: Apache-2.0

// Package plan decides what is done to a container to make it a sandbox, and does none of
// it. A plan depends on nothing but the arguments of [New], so the same config.json, policy
// and kernel give the same plan on every machine. The package can print a plan on a laptop
// (openshell plan), and its tests need no kernel:
//
//	pl, err := plan.New(spec, pol, plan.Options{LandlockABI: 7})
//	var refusal *plan.Refusal
//	if errors.As(err, &refusal) {
//		// config.json has something that no sandbox may have: refusal.Field
//	}
//	sandboxed := pl.Spec(spec)        // what the runtime makes
//	exec := pl.Process(other)         // what every later exec runs
//
// A plan has four parts. [New] refuses what gives a container control of the host, such as
// the host's namespaces, sockets of engines, and devices; [Check] does only that, and the
// operator's allow accepts single fields ([Fields]). A Landlock ruleset says which paths
// can be read and written. [Plan.Process] takes capabilities away and sets the user and
// the environment, by which programs find the proxy and the sandbox's CA. [Plan.Spec] adds
// mounts and masks. [Plan.Warnings] says what the user of the container may not expect.
//
// The package judges the text of config.json only. It does not see where a link or a bind
// mount leads; package libsandbox opens the sources of mounts and judges them with
// [LeadsOut] and [EngineFolders] again. It does not redirect the network, which package
// netns does in the live namespace, and it does not apply anything.
package plan
