// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"openshell.dev/runtime/internal/inferencefile"
	"openshell.dev/runtime/internal/secret"
	"openshell.dev/runtime/internal/secret/secrettest"
)

const (
	credentialValue = "s3cr3t-credential"
	routeValue      = "s3cr3t-route"
	sessionValue    = "s3cr3t-session"
	caValue         = "s3cr3t-ca-key"
)

// documents are one of each document that has secrets, with the secrets.
func documents() map[string]struct {
	document any
	secrets  []string
} {
	p := Provider{Name: "work", Endpoints: []Endpoint{{Host: "api.example.com", Ports: []uint16{443}}}, Credentials: []Credential{{Key: "KEY", Value: secret.New(credentialValue), Expires: time.Unix(1e9, 0).UTC()}}}
	i := &Inference{
		File: inferencefile.File{Routes: []inferencefile.Route{{Name: "r", Dialect: "openai", BaseURL: "https://api.example.com/v1"}}},
		Keys: map[string]RouteKey{"r": {Style: SigV4, KeyID: "id", Value: secret.New(routeValue), Session: secret.New(sessionValue)}},
	}
	c := Config{
		ID: "box", PolicyText: []byte("version: 1"), Providers: []Provider{p}, Inference: i, Trust: TrustStores{Folders: []TrustFolder{{Path: "/etc/ssl", Made: "/etc", MadeIn: time.Unix(1, 0).UTC()}}},
		Middlewares: []Middleware{{Name: "m", URL: "https://m.example.com", MaxBody: 1, Timeout: 3 * time.Second}}, Refresher: &Refresher{Argv: []string{"/bin/r"}},
	}
	return map[string]struct {
		document any
		secrets  []string
	}{
		"Config":       {&c, []string{credentialValue, routeValue, sessionValue}},
		"WorkerConfig": {&WorkerConfig{Config: c, CACert: []byte("cert"), CAKey: secret.New(caValue), Generation: 3}, []string{credentialValue, routeValue, sessionValue, caValue}},
		"Secrets":      {&Secrets{Generation: 2, Providers: []Provider{p}, Inference: i}, []string{credentialValue, routeValue, sessionValue}},
		"Update":       {&Update{Name: "work", Revision: 2, Credentials: p.Credentials}, []string{credentialValue}},
		"Attachment":   {&Attachment{Store: "/store", Provider: p}, []string{credentialValue}},
		"Inference":    {i, []string{routeValue, sessionValue}},
	}
}

// TestWire: what Encode writes, Decode reads, values included. Nothing else shows a value of
// a document, before and after.
func TestWire(t *testing.T) {
	for name, tc := range documents() {
		t.Run(name, func(t *testing.T) {
			secrettest.Check(t, tc.document, tc.secrets)
			text, err := Encode(tc.document)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tc.secrets {
				if !bytes.Contains(text, []byte(s)) {
					t.Errorf("%s is not in %s", s, text)
				}
			}
			out := reflect.New(reflect.TypeOf(tc.document).Elem()).Interface()
			if err := Decode(bytes.NewReader(text), out); err != nil {
				t.Fatal(err)
			}
			secrettest.Check(t, out, tc.secrets)
			again, err := Encode(out)
			if err != nil || !bytes.Equal(text, again) {
				t.Errorf("decoded and encoded:\n%s, %v, want\n%s", again, err, text)
			}
			// encoding/json gives no value, and what it gives is not read.
			hidden, err := json.Marshal(tc.document)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(hidden, out); err == nil {
				t.Errorf("encoding/json reads %s", hidden)
			}
			for what, bad := range map[string]string{
				"an unknown member": strings.Replace(string(text), "{", `{"unheard":1,`, 1),
				"two documents":     string(text) + string(text),
				"half a document":   string(text[:len(text)/2]),
				"a secret number":   strings.Replace(string(text), `"`+tc.secrets[0]+`"`, "7", 1),
			} {
				if err := Decode(strings.NewReader(bad), out); err == nil {
					t.Errorf("%s is taken", what)
				} else {
					secrettest.Check(t, struct {
						error
						secrets []secret.Secret
					}{err, keep(tc.secrets)}, tc.secrets)
				}
			}
		})
	}
}

// keep makes secrets of texts.
func keep(texts []string) (out []secret.Secret) {
	for _, s := range texts {
		out = append(out, secret.New(s))
	}
	return out
}

// TestStream: documents follow each other on a descriptor, and its end is io.EOF.
func TestStream(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		e := NewEncoder(w)
		_ = e.Encode(&Config{ID: "box"})
		_ = e.Encode(&Container{Pid: 7, Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Hosts: map[string][]netip.Addr{"a": {netip.MustParseAddr("::1")}}})
		_ = w.Close()
	}()
	d := NewDecoder(r)
	var c Config
	var ctr Container
	if err := errors.Join(d.Decode(&c), d.Decode(&ctr)); err != nil || c.ID != "box" || ctr.Pid != 7 || ctr.Resolvers[0].Port() != 53 || !ctr.Hosts["a"][0].IsLoopback() {
		t.Errorf("%+v, %+v, %v", c, ctr, err)
	}
	if err := d.Decode(&ctr); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}
