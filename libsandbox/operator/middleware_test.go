// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMiddlewares(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	load := func(text string) (*Config, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadConfig(file)
	}
	c, err := load(`middlewares:
  - {name: local/guard, grpc_endpoint: "https://guard.example:50051", tls_ca_cert_path: /etc/ca.pem, max_body_bytes: 262144, timeout: 2s}
  - {name: plain, grpc_endpoint: "http://host.openshell.internal:50051", allow_insecure_transport: true, max_body_bytes: 1}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []MiddlewareService{
		{Name: "local/guard", Endpoint: "https://guard.example:50051", CAFile: "/etc/ca.pem", MaxBodyBytes: 262144, Timeout: "2s"},
		{Name: "plain", Endpoint: "http://host.openshell.internal:50051", InsecureTransport: true, MaxBodyBytes: 1},
	}
	if d := cmp.Diff(want, c.Middlewares); d != "" {
		t.Error(d)
	}
	if d, err := c.Middlewares[0].CallTimeout(); d != 2*time.Second || err != nil {
		t.Errorf("%s %v", d, err)
	}
	for text, want := range map[string]string{
		`{name: "", grpc_endpoint: "https://a", max_body_bytes: 1}`:                                                          "name",
		`{name: openshell/x, grpc_endpoint: "https://a", max_body_bytes: 1}`:                                                 "openshell/",
		`{name: a, grpc_endpoint: "ftp://a", max_body_bytes: 1}`:                                                             "grpc_endpoint",
		`{name: a, grpc_endpoint: "https://u:p@a", max_body_bytes: 1}`:                                                       "grpc_endpoint",
		`{name: a, grpc_endpoint: "http://a", max_body_bytes: 1}`:                                                            "allow_insecure_transport",
		`{name: a, grpc_endpoint: "https://a"}`:                                                                              "max_body_bytes",
		`{name: a, grpc_endpoint: "https://a", max_body_bytes: 4194305}`:                                                     "max_body_bytes",
		`{name: a, grpc_endpoint: "https://a", max_body_bytes: 1, timeout: 1m}`:                                              "whole number",
		`{name: a, grpc_endpoint: "https://a", max_body_bytes: 1, timeout: 31s}`:                                             "10ms to 30s",
		`{name: a, grpc_endpoint: "https://a", max_body_bytes: 1, max_payload_bytes: 1}`:                                     "max_payload_bytes",
		`{name: a, grpc_endpoint: "https://a", max_body_bytes: 1}, {name: a, grpc_endpoint: "https://a", max_body_bytes: 1}`: "another service has the name a",
	} {
		if _, err := load("middlewares: [" + text + "]\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
