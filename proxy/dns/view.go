// SPDX-License-Identifier: Apache-2.0

package dns

import "net/netip"

// ViewConfig says which names a [View] has.
type ViewConfig struct {
	// MayResolve reports whether the sandbox's policy could allow name, which
	// [Config.Normalize] has returned. Nil: no name exists but localhost.
	MayResolve func(name string) bool
	// Record is called for every question that is answered; nil is not called. It must not
	// block. name has DNS escapes if Normalize refuses it. allowed is true if the name
	// exists.
	Record func(name, qtype string, allowed bool)
}

// View is the names of one sandbox and the synthetic addresses that stand for them. An
// address stands for its name in this view only. Its methods may be called concurrently.
type View struct {
	c    ViewConfig
	pool *pool
}

// NewView makes a View in which no address stands for a name yet.
func NewView(c ViewConfig) *View {
	if c.MayResolve == nil {
		c.MayResolve = func(string) bool { return false }
	}
	if c.Record == nil {
		c.Record = func(string, string, bool) {}
	}
	return &View{c: c, pool: newPool()}
}

// Name returns the name that a synthetic address stands for.
func (v *View) Name(addr netip.Addr) (string, bool) { return v.pool.name(numberOf(addr)) }
