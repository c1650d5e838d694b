// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"net/rpc"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/proxy/identity"
)

// serviceName is the name of service on the socket pair.
const serviceName = "Guard"

// service has the methods that net/rpc calls for a worker.
type service struct {
	g *Guard
	// gone is closed when the worker has ended.
	gone chan struct{}
}

// Holders answers who holds a connection.
func (a *service) Holders(c proxyapi.Connection, out *[]identity.Process) (err error) {
	*out, err = a.g.who.Resolve(c.Local, c.Remote)
	return err
}

// Programs is a question: where these paths lead in a container.
type Programs struct {
	Container string
	Paths     []string
}

// Aliases answers where the paths of programs lead in the container.
func (a *service) Aliases(p Programs, out *map[string][]string) error {
	if p.Container != a.g.Config.ID {
		return fmt.Errorf("the guard has no container %q", p.Container)
	}
	// The first worker's are those before the workload could change a link.
	if first := a.g.aliases.Swap(nil); first != nil {
		*out = *first
		return nil
	}
	*out = a.g.who.Aliases(p.Paths)
	return nil
}

// Ready notes that a worker serves, or with refused why its policy cannot be loaded.
func (a *service) Ready(refused string, _ *struct{}) error {
	a.g.readiness.report(refused)
	return nil
}

// Secrets answers what the secrets are once they are others than the worker knows.
func (a *service) Secrets(k proxyapi.Known, out *[]byte) error {
	s, err := a.g.secrets.after(k, a.gone)
	if err != nil {
		return err
	}
	*out, err = proxyapi.Encode(s)
	return err
}

// Client asks the guard. It is safe for use by many goroutines.
type Client struct{ c *rpc.Client }

// NewClient asks over conn.
func NewClient(conn net.Conn) *Client { return &Client{rpc.NewClient(conn)} }

// Holders says which programs hold a connection: at least one, or an error.
func (c *Client) Holders(local, remote netip.AddrPort) (out []identity.Process, err error) {
	err = c.c.Call(serviceName+".Holders", proxyapi.Connection{Local: local, Remote: remote}, &out)
	return out, err
}

// Aliases returns where the paths of programs lead in a container.
func (c *Client) Aliases(container string, paths []string) (out map[string][]string, err error) {
	err = c.c.Call(serviceName+".Aliases", Programs{container, paths}, &out)
	return out, err
}

// Ready tells the guard that the worker serves, or why it cannot load the policy.
func (c *Client) Ready(err error) error {
	refused := ""
	if err != nil {
		refused = err.Error()
	}
	return c.c.Call(serviceName+".Ready", refused, &struct{}{})
}

// Secrets waits for other secrets than the known ones, about which it tells the
// guard.
func (c *Client) Secrets(k proxyapi.Known) (*proxyapi.Secrets, error) {
	var document []byte
	if err := c.c.Call(serviceName+".Secrets", k, &document); err != nil {
		return nil, err
	}
	out := &proxyapi.Secrets{}
	return out, proxyapi.Decode(bytes.NewReader(document), out)
}
