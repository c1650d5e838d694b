// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"net"
	"net/netip"
	"net/rpc"

	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/proxy/identity"
)

// service is the name of the guard's answers on the socket pair.
const service = "Guard"

// answers is what a worker may ask: net/rpc calls its methods.
type answers struct {
	g *Guard
	// gone is closed when the worker has ended.
	gone chan struct{}
}

// Holders answers who holds a connection.
func (a *answers) Holders(c proxyapi.Connection, out *[]identity.Process) (err error) {
	*out, err = a.g.who.Resolve(c.Local, c.Remote)
	return err
}

// Programs is a question: where these paths lead in a container.
type Programs struct {
	Container string
	Paths     []string
}

// Aliases answers where the paths of programs lead in the container.
func (a *answers) Aliases(p Programs, out *map[string][]string) error {
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

// Begun is told why a worker's policy cannot be loaded; nothing if it serves.
func (a *answers) Begun(refused string, _ *struct{}) error {
	a.g.opening.say(refused)
	return nil
}

// Secrets answers what the secrets are once they are others than the worker knows.
func (a *answers) Secrets(k proxyapi.Known, out *proxyapi.Secrets) error {
	s, err := a.g.secrets.after(k, a.gone)
	if err != nil {
		return err
	}
	*out = *s
	return nil
}

// Client asks the guard. It is safe for use by many goroutines.
type Client struct{ c *rpc.Client }

// NewClient asks over conn.
func NewClient(conn net.Conn) *Client { return &Client{rpc.NewClient(conn)} }

// Holders says which programs hold a connection: at least one, or an error.
func (c *Client) Holders(local, remote netip.AddrPort) (out []identity.Process, err error) {
	err = c.c.Call(service+".Holders", proxyapi.Connection{Local: local, Remote: remote}, &out)
	return out, err
}

// Aliases returns where the paths of programs lead in a container.
func (c *Client) Aliases(container string, paths []string) (out map[string][]string, err error) {
	err = c.c.Call(service+".Aliases", Programs{container, paths}, &out)
	return out, err
}

// Begun tells the guard that the worker serves, or why it cannot load the policy.
func (c *Client) Begun(err error) error {
	refused := ""
	if err != nil {
		refused = err.Error()
	}
	return c.c.Call(service+".Begun", refused, &struct{}{})
}

// Secrets waits for other secrets than the known ones, about which it tells the
// guard.
func (c *Client) Secrets(k proxyapi.Known) (*proxyapi.Secrets, error) {
	var out proxyapi.Secrets
	err := c.c.Call(service+".Secrets", k, &out)
	return &out, err
}
