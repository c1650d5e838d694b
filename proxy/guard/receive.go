// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"

	"openshell.dev/runtime/internal/proxyapi"
)

// receive opens the guard's socket and serves it until leave is called. Who has
// credentials shows that in the store's folder.
func (g *Guard) receive() (leave func(), err error) {
	f, err := listen(filepath.Join(g.Config.StateDir, proxyapi.SecretsSocketFile))
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("use the socket for credentials: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+proxyapi.PathProviders, func(w http.ResponseWriter, _ *http.Request) { answer(w, g.secrets.attached(), nil) })
	mux.HandleFunc("PUT "+proxyapi.PathProvider, func(w http.ResponseWriter, r *http.Request) {
		var u proxyapi.Update
		change(g, w, r, &u, func(s *proxyapi.Secrets) (*proxyapi.Secrets, error) { return s.Apply(&u) })
	})
	mux.HandleFunc("PUT "+proxyapi.PathAttach, func(w http.ResponseWriter, r *http.Request) {
		var a proxyapi.Attachment
		change(g, w, r, &a, func(s *proxyapi.Secrets) (*proxyapi.Secrets, error) { return g.attachProvider(s, &a) })
	})
	mux.HandleFunc("PUT "+proxyapi.PathDetach, func(w http.ResponseWriter, r *http.Request) {
		var d proxyapi.Detachment
		change(g, w, r, &d, func(s *proxyapi.Secrets) (*proxyapi.Secrets, error) { return s.Detach(d.Name) })
	})
	mux.HandleFunc("PUT "+proxyapi.PathInference, func(w http.ResponseWriter, r *http.Request) {
		var i proxyapi.Inference
		change(g, w, r, &i, func(s *proxyapi.Secrets) (*proxyapi.Secrets, error) {
			if s.Inference == nil {
				return nil, proxyapi.ErrNotAttached // its workload has no variables that lead there
			}
			return &proxyapi.Secrets{Providers: s.Providers, Inference: &i}, nil
		})
	})
	server := &http.Server{
		Handler: mux, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerPatience, ReadTimeout: requestPatience,
		IdleTimeout: headerPatience, ErrorLog: log.New(io.Discard, "", 0),
	}
	if len(g.Config.Providers) > 0 || g.Config.Inference != nil {
		if err := g.join(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	go func() { _ = server.Serve(netutil.LimitListener(l, maxSpeakers)) }()
	return func() {
		_ = os.Remove(g.link())
		_ = server.Close()
	}, nil
}

// attachProvider makes one more provider the sandbox's, if news of it would be heard.
func (g *Guard) attachProvider(s *proxyapi.Secrets, a *proxyapi.Attachment) (*proxyapi.Secrets, error) {
	if ours := filepath.Dir(g.Config.Attached); a.Store != ours {
		return nil, fmt.Errorf("the sandbox has its providers from %s, not from %s", ours, a.Store)
	}
	if a.Provider.Renewed && g.Config.Refresher == nil {
		return nil, errors.New("the runtime had no openshell-refresher beside it when the sandbox was created, and the provider needs it")
	}
	next, err := s.Attach(&a.Provider)
	if err != nil {
		return nil, err
	}
	return next, g.join()
}

// join makes the guard one of those that hear of the store's changes, and that keep its
// refresher running.
func (g *Guard) join() error {
	if err := g.show(); err != nil {
		return err
	}
	if g.Config.Refresher != nil {
		g.refreshes.Do(func() { go g.keepRefresher() })
	}
	return nil
}

// link is where the sandbox shows itself. The name differs between sandboxes of one ID
// under different roots, and has room for the longest ID.
func (g *Guard) link() string {
	sum := sha256.Sum256([]byte(g.Config.StateDir))
	return filepath.Join(g.Config.Attached, hex.EncodeToString(sum[:16]))
}

// show leaves a link to the sandbox's folder where those look who have news of a
// provider.
func (g *Guard) show() error {
	if to, err := os.Readlink(g.link()); err == nil && to == g.Config.StateDir {
		return nil // who looks must not miss it meanwhile
	}
	if err := os.MkdirAll(g.Config.Attached, 0o700); err != nil {
		return fmt.Errorf("create the folder of attached sandboxes: %w", err)
	}
	if err := os.Remove(g.link()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an old link: %w", err)
	}
	if err := os.Symlink(g.Config.StateDir, g.link()); err != nil {
		return fmt.Errorf("show the sandbox to the store: %w", err)
	}
	return nil
}

// change reads a document, edits the secrets by it and answers when they are in use.
func change(g *Guard, w http.ResponseWriter, r *http.Request, into any, edit func(*proxyapi.Secrets) (*proxyapi.Secrets, error)) {
	if proxyapi.Decode(http.MaxBytesReader(w, r.Body, proxyapi.MaxUpdate), into) != nil {
		// The reason might quote the document.
		answer(w, nil, &proxyapi.Failure{Code: proxyapi.CodeBadRequest, Detail: "the document cannot be read"})
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(workerPatience + requestPatience))
	n, err := g.secrets.change(edit)
	answer(w, proxyapi.Updated{Generation: n}, err)
}

func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		f := &proxyapi.Failure{Code: proxyapi.CodeInternal, Detail: err.Error()}
		var refused *refusedError
		switch {
		case errors.As(err, &f):
		case errors.Is(err, proxyapi.ErrNotAttached):
			f.Code = proxyapi.CodeNotAttached
		case errors.Is(err, proxyapi.ErrDeleted):
			f.Code = proxyapi.CodeDeleted
		case errors.As(err, &refused):
			f.Code = proxyapi.CodeBadRequest
		}
		status, v = http.StatusConflict, f
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked has gone: nobody to tell
}

// attached says which providers there are, without a value.
func (l *live) attached() []proxyapi.Attached {
	s, out := l.current(), []proxyapi.Attached{}
	for _, p := range s.Providers {
		a := proxyapi.Attached{Name: p.Name, Revision: p.Revision, Renewed: p.Renewed, Gone: p.Gone}
		for _, c := range p.Credentials {
			if c.Revision == p.Revision && !c.Expires.IsZero() {
				if a.Expires == nil {
					a.Expires = map[string]time.Time{}
				}
				a.Expires[c.Key] = c.Expires
			}
		}
		out = append(out, a)
	}
	if s.Inference == nil {
		return out
	}
	routes := map[string][]string{} // of a provider
	for _, r := range s.Inference.Routes {
		if r.Provider != "" {
			routes[r.Provider] = append(routes[r.Provider], r.Name)
		}
	}
	for i := range out {
		if of := routes[out[i].Name]; len(of) > 0 {
			out[i].Routes, out[i].Renewed = of, out[i].Renewed || s.Inference.Keys[of[0]].Renewed
			delete(routes, out[i].Name)
		}
	}
	for name, of := range routes {
		k := s.Inference.Keys[of[0]]
		out = append(out, proxyapi.Attached{Name: name, Revision: k.Revision, Renewed: k.Renewed, Routes: of})
	}
	return out
}

// renewed says whether something here must be made anew from time to time.
func (l *live) renewed() bool {
	s := l.current()
	for _, p := range s.Providers {
		if p.Renewed {
			return true
		}
	}
	if s.Inference != nil {
		for _, k := range s.Inference.Keys {
			if k.Renewed {
				return true
			}
		}
	}
	return false
}
