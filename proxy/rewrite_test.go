// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"openshell.dev/runtime/policy"
	"openshell.dev/runtime/proxy/credentials"
)

const rewrites = "host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, request_body_credential_rewrite: true"

// TestBodiesAreRewritten: placeholders in JSON, forms and text become values where
// the policy says so, with and without a length, over both versions of HTTP.
func TestBodiesAreRewritten(t *testing.T) {
	long := strings.Repeat("0123456789", 100_000)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct{ name, kind, body, want string }{
			{"JSON", "application/json", `{"k":"` + secretKey + `"}`, `{"k":"` + secretValue + `"}`},
			{"JSON, escaped", "application/json; charset=utf-8", `{"k":"\u006fpenshell\u003aresolve\u003Aenv:API\u005fKEY"}`, `{"k":"` + secretValue + `"}`},
			{"form", "application/x-www-form-urlencoded", "k=openshell%3Aresolve%3aenv%3AAPI_KEY&b", "k=" + secretValue + "&b"},
			{"text", "text/plain", "k " + secretKey + ".", "k " + secretValue + "."},
			{"alias", "text/plain", "k sk-OPENSHELL-RESOLVE-ENV-API_KEY .", "k " + secretValue + " ."},
			{"none", "application/json", `{"k":"openshell:resolve:env"}`, `{"k":"openshell:resolve:env"}`},
			{"long", "text/plain", long, long},
		} {
			for _, chunked := range []bool{false, true} {
				t.Run(proto+" "+tc.name+" "+strconv.FormatBool(chunked), func(t *testing.T) {
					w := withSecret(t)
					w.load(endpoints(rewrites))
					got := w.site("api.example.com", 443, nil, proto)
					var body io.Reader = strings.NewReader(tc.body)
					if chunked {
						body = io.MultiReader(body)
					}
					req, err := http.NewRequest("POST", "https://api.example.com/", body)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", tc.kind)
					resp, err := w.client(w.byConnect, proto).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					answer, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					all := got.got()
					if resp.StatusCode != 200 || len(all) != 1 || all[0].Body != tc.want {
						t.Fatalf("status %d %s, arrived %.300v", resp.StatusCode, answer, all)
					}
					if l := all[0].Header.Get("Content-Length"); !chunked && l != "" && l != strconv.Itoa(len(tc.want)) {
						t.Errorf("length %s, %d bytes", l, len(tc.want))
					}
				})
			}
		}
	}
}

// TestBypass_B66_BodiesNotRewritten: where or how a body is not rewritten, nothing
// of a placeholder's value and no whole placeholder leaves.
func TestBypass_B66_BodiesNotRewritten(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "k="+secretKey)
	z.Close()
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct{ name, endpoint, kind, encoding, body, code string }{
			{"of nobody, without the field", strings.Replace(rewrites, "true", "false", 1), "application/json", "", `"` + credentials.Marker + "NOBODY" + `"`, `{"error":{"code":"credential_placeholder_in_request_body","reason":"no attached provider has`},
			{"of nobody, escaped, without the field", strings.Replace(rewrites, "true", "false", 1), "application/json", "", `"openshell\u003aresolve:env:NOBODY"`, `{"error":{"code":"credential_placeholder_in_request_body"`},
			{"multipart", rewrites, "multipart/form-data; boundary=x", "", "--x\r\n\r\n" + secretKey + "\r\n--x--", "credential_injection_failed"},
			{"unknown type", rewrites, "application/octet-stream", "", secretKey, "credential_injection_failed"},
			{"long", rewrites, "text/plain", "", strings.Repeat(" ", credentials.MaxRewriteBody) + secretKey, "credential_injection_failed"},
			{"compressed", rewrites, "text/plain", "gzip", zipped.String(), "credential_injection_failed"},
			{"not to be decompressed", rewrites, "text/plain", "br", "x", "uninspected_credentials"},
			{"in AWS's chunks", rewrites, "application/octet-stream", "aws-chunked", "33\r\n" + secretKey + "\r\n0\r\n\r\n", "credential_injection_failed"},
			{"of nobody", rewrites, "text/plain", "", credentials.Marker + "NOBODY", "credential_injection_failed"},
			{"elsewhere", strings.Replace(rewrites, "api.example", "raw.example", 1), "text/plain", "", secretKey, "credential_endpoint_mismatch"},
		} {
			t.Run(proto+" "+tc.name, func(t *testing.T) {
				w := withSecret(t)
				w.load(endpoints(tc.endpoint))
				host := "api.example.com"
				if tc.name == "elsewhere" {
					host = "raw.example.com"
				}
				got := w.site(host, 443, nil, proto)
				for _, chunked := range []bool{false, true} {
					if chunked && tc.name == "long" {
						continue // of unknown length bodies are rewritten as they come
					}
					var body io.Reader = strings.NewReader(tc.body)
					if chunked {
						body = io.MultiReader(body)
					}
					req, err := http.NewRequest("POST", "https://"+host+"/", body)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Content-Type", tc.kind)
					if tc.encoding != "" {
						req.Header.Set("Content-Encoding", tc.encoding)
					}
					resp, err := w.client(w.byConnect, proto).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					answer, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if !strings.Contains(string(answer), tc.code) {
						t.Errorf("status %d %s", resp.StatusCode, answer)
					}
				}
				for _, r := range got.got() {
					if strings.Contains(r.Body, secretKey[:len(credentials.Marker)]) || strings.Contains(r.Body, secretValue) {
						t.Errorf("arrived %q", r.Body)
					}
				}
			})
		}
	}
	// The control: the same body without a placeholder arrives.
	w := withSecret(t)
	w.load(endpoints(rewrites))
	got := w.site("api.example.com", 443, nil, "http/1.1")
	if resp, _ := get(t, w.client(w.byConnect, "http/1.1"), "POST", "https://api.example.com/", strings.NewReader("k=v")); resp.StatusCode != 200 || len(got.got()) != 1 {
		t.Errorf("control: status %d", resp.StatusCode)
	}
}

// TestBypass_B66_PlaceholdersPass: where bodies are not rewritten, the sandbox's placeholders
// arrive as they are, compressed and at hosts of no provider too, and the record names them.
func TestBypass_B66_PlaceholdersPass(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "k="+secretKey)
	z.Close()
	endpoint := strings.Replace(rewrites, "true", "false", 1)
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, tc := range []struct{ host, kind, encoding, body, want string }{
			{"api.example.com", "application/json", "", `{"env":"KEY=` + secretKey + `"}`, "[API_KEY]"},
			{"api.example.com", "application/json", "", `"openshell\u003aresolve:env:API_KEY"`, "[API_KEY]"},
			{"api.example.com", "multipart/form-data; boundary=x", "", "--x\r\n\r\n" + secretKey + "\r\n--x--", "[API_KEY]"},
			{"api.example.com", "text/plain", "gzip", zipped.String(), "[API_KEY]"},
			{"raw.example.com", "text/plain", "", secretKey, "[API_KEY]"},
			{"raw.example.com", "text/plain", "", "openshell:resolve:env", "[]"},
		} {
			for _, chunked := range []bool{false, true} {
				w := withSecret(t)
				w.load(endpoints(strings.Replace(endpoint, "api.example.com", tc.host, 1)))
				got := w.site(tc.host, 443, nil, proto)
				var body io.Reader = strings.NewReader(tc.body)
				if chunked {
					body = io.MultiReader(body)
				}
				req, err := http.NewRequest("POST", "https://"+tc.host+"/", body)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", tc.kind)
				if tc.encoding != "" {
					req.Header.Set("Content-Encoding", tc.encoding)
				}
				resp, err := w.client(w.byConnect, proto).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				all, rec := got.got(), w.recorded(0)
				if resp.StatusCode != 200 || len(all) != 1 || all[0].Body != tc.body || fmt.Sprint(rec.Placeholders) != tc.want || len(rec.Credentials) > 0 {
					t.Errorf("%s %s %q: status %d, arrived %.200v, recorded %+v", proto, tc.host, tc.body, resp.StatusCode, all, rec)
				}
			}
		}
	}
}

// TestBodiesPassUninspected: where the policy allows it they pass as they are.
func TestBodiesPassUninspected(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		for _, endpoint := range []string{"host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: full, allow_uninspected_credentials: true", "host: api.example.com, port: 443, allow_uninspected_credentials: true"} {
			w := withSecret(t)
			w.load(endpoints(endpoint))
			got := w.site("api.example.com", 443, nil, proto)
			req, err := http.NewRequest("POST", "https://api.example.com/", strings.NewReader("my environment: "+secretKey))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Key", secretKey)
			resp, err := w.client(w.byConnect, proto).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if all := got.got(); resp.StatusCode != 200 || len(all) != 1 || all[0].Body != "my environment: "+secretKey || all[0].Header.Get("X-Key") != secretValue {
				t.Errorf("status %d, arrived %v", resp.StatusCode, all)
			}
		}
	}
}

// TestRouterWithoutTLS: http://inference.local reaches the router by every way in,
// and nothing else is reached by it.
func TestBypass_B69_RouterWithoutTLS(t *testing.T) {
	w := newWorld(t, endpoints("host: api.example.com, port: 80"))
	api := w.site("api.example.com", 80, nil)
	router := netip.MustParseAddr("198.18.0.9")
	before := w.sandbox.nameOf
	w.sandbox.nameOf = func(a netip.Addr) (string, bool) {
		if a == router {
			return policy.RouterHost, true
		}
		return before(a)
	}
	var asked []string
	w.sandbox.SetRouter(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.RequestURI+" "+r.Host+" "+string(b))
		_, _ = io.WriteString(rw, "routed")
	}))
	const absolute = "POST http://inference.local/v1/messages?a HTTP/1.1\r\nHost: inference.local\r\nContent-Length: 2\r\n\r\nhi"
	for _, tc := range []struct {
		name, request string
		direct        bool
		status        int
		asked         string
	}{
		{"absolute form", absolute, false, 200, "POST /v1/messages?a inference.local hi"},
		{"with its port", strings.Replace(absolute, "local/", "local:80/", 1), false, 200, "POST /v1/messages?a inference.local:80 hi"},
		{"in capitals", strings.Replace(absolute, "http://inference", "HTTP://INFERENCE", 1), false, 200, "POST /v1/messages?a INFERENCE.local hi"},
		{"another Host", strings.Replace(absolute, "Host: inference.local", "Host: evil.example.net", 1), false, 400, ""},
		{"directly", "POST /v1/messages?a HTTP/1.1\r\nHost: inference.local\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true, 200, "POST /v1/messages?a inference.local hi"},
		{"directly, in absolute form", strings.Replace(absolute, "Host:", "Connection: close\r\nHost:", 1), true, 200, "POST /v1/messages?a inference.local hi"},
		{"another port", strings.Replace(absolute, "local/", "local:22/", 1), false, 0, ""},
		{"directly, another's absolute form", strings.Replace(absolute, "inference.local/v1/messages?a HTTP/1.1\r\n", "api.example.com/ HTTP/1.1\r\nConnection: close\r\n", 1), true, 0, ""},
		{"https in absolute form", strings.Replace(absolute, "http:", "https:", 1), false, 200, "POST /v1/messages?a inference.local hi"},
		{"another name", strings.ReplaceAll(absolute, "inference.local", "inference.local.evil.example.net"), false, 403, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked = nil
			c := w.dial()
			if tc.direct {
				c = w.to(router.String() + ":80")
			}
			_, _ = io.WriteString(c, tc.request)
			answer, err := io.ReadAll(io.LimitReader(c, 1<<10))
			_ = err // a reset is an answer, too
			if tc.status == 200 && (!strings.HasPrefix(string(answer), "HTTP/1.1 200") || !strings.HasSuffix(string(answer), "routed")) ||
				tc.status > 200 && !strings.HasPrefix(string(answer), "HTTP/1.1 "+strconv.Itoa(tc.status)) || tc.status == 0 && strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				t.Errorf("the answer is %q", answer)
			}
			if got := strings.Join(asked, ","); got != tc.asked {
				t.Errorf("the router was asked %q, want %q", got, tc.asked)
			}
		})
	}
	// A client that goes on with another host on the connection is not let in by it.
	c := w.dial()
	_, _ = io.WriteString(c, absolute+"GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n\r\n")
	if answer, _ := io.ReadAll(c); strings.Count(string(answer), "HTTP/1.1") != 1 {
		t.Errorf("the answers are %q", answer)
	}
	if n := len(w.dials()); n != 0 || len(api.got()) != 0 {
		t.Errorf("%d connections were made", n)
	}
}
