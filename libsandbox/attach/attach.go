// SPDX-License-Identifier: Apache-2.0

// Package attach prepares what a sandbox's proxy is told when it starts: the policy, the
// credentials of providers, the routes of inference.local, and the middleware services.
//
// [Attach] reads the operator's files and returns an [Attachment]: the proxy's first
// document, and the variables by which programs in the container use it. The providers in
// the document stay locked until [Attachment.Release]. A change of a credential waits that
// long, so the proxy either starts with the new value or is told of it later:
//
//	a, err := attach.Attach(attach.Options{…})
//	if err != nil {
//		return err
//	}
//	defer a.Release()
//	// Start the proxy with a.Config. Its guard takes updates as soon as it is ready.
//
// Attach makes nothing: no file of the sandbox, no container, no process that outlives the
// call. Therefore it can be called again for a sandbox that exists, and the same inputs
// give the same documents. It starts the refresher once for a provider whose credential
// has expired, and waits for it.
//
// The package does not decide which connections are allowed (package policy does), and
// does not talk to a proxy (package proxyproc does).
package attach

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/operator"
	"openshell.dev/runtime/policy"
)

// maxCAFile bounds a file of certificates (PEM), in bytes. The bundles of the
// distributions have less than 1 MiB.
const maxCAFile = 16 << 20

// Options are the inputs of [Attach].
type Options struct {
	// ID is the container's ID. It is required.
	ID string
	// StateDir is the sandbox's folder, see state.Dir. Attach only passes the path on. It
	// is required.
	StateDir string
	// Config is the operator's configuration. It is required.
	Config *operator.Config
	// Source is the text of the policy, Policy the same as a value. Both are required. A
	// policy that uses a middleware or a binding that the sandbox does not have is an
	// error.
	Source *operator.Source
	Policy *policy.Policy
	// Providers are names of providers whose credentials the workload may use. The
	// annotation [AnnotationProviders] adds names. A name that appears twice counts once.
	// A provider that does not exist or cannot be used is an error. The zero value is no
	// provider.
	Providers []string
	// Annotations are the annotations of config.json. The zero value has none.
	Annotations map[string]string
	// Egress is where the proxy's own connections start. The zero value means
	// EgressNamespace.
	Egress proxyapi.Egress
	// UpstreamCAs are files of certificates (PEM) by which the proxy verifies upstreams, in
	// addition to the certificates of the machine and of upstream.ca_files in Config. A file
	// without a certificate is an error. The zero value adds none.
	UpstreamCAs []string
}

// Attachment is the first document of a proxy, and the locks of the providers in it.
type Attachment struct {
	// Config is the proxy's first document. Two of its fields are not known here: the
	// caller sets Trust and MayNamePrograms.
	Config *proxyapi.Config
	// Placeholders are variables, NAME=VALUE. Each takes the place of a variable in which
	// programs expect a credential.
	Placeholders []string
	// Env are further variables, NAME=VALUE, for processes that do not have them: the
	// base URLs of inference.local, and the configuration of git.
	Env []string

	leases *leases
}

// Attach prepares the documents of a proxy. If it returns no error, the caller calls
// [Attachment.Release].
func Attach(o Options) (_ *Attachment, err error) {
	l := newLeases(o.Config)
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	a := &Attachment{leases: l}
	if a.Config, err = proxyConfig(&o); err != nil {
		return nil, err
	}
	if err := a.addServices(&o); err != nil {
		return nil, err
	}
	if err := l.follow(a.Config); err != nil {
		return nil, err
	}
	return a, nil
}

// Release unlocks the providers: others may change them. The caller calls it when the
// sandbox's guard takes updates, or when there will be no sandbox. A second call does
// nothing.
func (a *Attachment) Release() { a.leases.release() }

// addServices adds the services that the proxy puts credentials in for, or asks, and the
// variables by which programs use them.
func (a *Attachment) addServices(o *Options) (err error) {
	c := a.Config
	if c.Middlewares, err = middlewares(o.Config, o.Policy); err != nil {
		return fmt.Errorf("policy %s: %w", o.Source.Name, err)
	}
	names, err := providerNames(o)
	if err != nil {
		return err
	}
	if c.Providers, a.Placeholders, err = providers(names, a.leases); err != nil {
		return err
	}
	if err := o.Policy.CheckBindings(bindings(c.Providers)); err != nil {
		return fmt.Errorf("policy %s: %w", o.Source.Name, err)
	}
	if c.Inference, err = inference(o.Config.InferenceFile, a.leases); err != nil {
		return err
	}
	if c.Inference != nil {
		a.Env = baseURLs(c.Inference.Routes)
	}
	a.Env = append(a.Env, gitEnvironment(o.Policy, c.Providers)...)
	return nil
}

// proxyConfig returns the part of the proxy's first document that needs no provider.
func proxyConfig(o *Options) (*proxyapi.Config, error) {
	c := o.Config
	h := &proxyapi.Config{
		ID: o.ID, PolicyName: o.Source.Name, PolicyText: o.Source.Text, StateDir: o.StateDir,
		LogDir: filepath.Join(c.LogDir, o.ID), Egress: o.Egress,
		Enforce:           c.UnspecifiedEnforcement == policy.EnforcementBlock,
		ControlPlanePorts: c.ControlPlanePorts,
		AnyPlace:          c.CredentialPlacement == operator.PlacementAny,
		TerminatePlainTLS: c.PlainEndpointTLS == operator.PlainTerminate,
		FailClosed:        c.PolicyValidationFailureMode == operator.FailClosed,
	}
	if h.Egress == proxyapi.EgressNone {
		h.Egress = proxyapi.EgressNamespace
	}
	for _, file := range slices.Concat(c.Upstream.CAFiles, o.UpstreamCAs) {
		pem, err := readCAs(file)
		if errors.Is(err, errNoCertificate) {
			return nil, fmt.Errorf("upstream CA %s: %w", file, err)
		}
		if err != nil {
			return nil, fmt.Errorf("read upstream CA: %w", err)
		}
		h.UpstreamRoots = append(append(h.UpstreamRoots, pem...), '\n')
	}
	return h, nil
}

// errNoCertificate is about a file of certificates that has none.
var errNoCertificate = errors.New("no certificate (PEM) in it")

// readCAs reads a file of certificates (PEM).
func readCAs(file string) ([]byte, error) {
	pem, err := boundedfile.Read(file, maxCAFile)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, errNoCertificate
	}
	return pem, nil
}
