// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"openshell.dev/runtime/internal/proxyapi"
)

// FuzzControl: whatever is asked is answered in the API's shapes, and what is
// enforced afterwards is the text that the answer says, or the one before.
func FuzzControl(f *testing.F) {
	f.Add("POST", proxyapi.PathPolicy, "name=a.yaml", []byte("version: 1\n"))
	f.Add("POST", proxyapi.PathPolicy, "name=a&name=b", []byte("invalid"))
	f.Add("POST", proxyapi.PathRollback, "", []byte(`{"revision":1}`))
	f.Add("POST", proxyapi.PathRollback, "", []byte(`{"revision":-1e9}`))
	f.Add("GET", proxyapi.PathPolicy, "revision=99999999999999999999", []byte(nil))
	f.Add("GET", "/v1/../v1//status", "%zz", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		target := &url.URL{Scheme: "http", Host: "proxy", Path: path, RawQuery: query}
		r, err := http.NewRequest(method, target.String(), bytes.NewReader(body))
		if err != nil {
			return // no request that a connection could bring
		}
		dir := t.TempDir()
		if err := First(dir, "created.yaml", []byte("first")); err != nil {
			t.Fatal(err)
		}
		j := &court{revision: 1, text: "first"}
		s, err := New(j, dir)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		var loaded proxyapi.Loaded
		switch took := r.Method == http.MethodPost && w.Code == http.StatusOK; {
		case took:
			if err := json.Unmarshal(w.Body.Bytes(), &loaded); err != nil || loaded.Revision != j.revision {
				t.Errorf("answer %q, revision %d", w.Body, j.revision)
			}
		case j.text != "first" || j.revision != 1:
			t.Errorf("status %d, and %q is enforced", w.Code, j.text)
		}
		if n, text, _, err := Latest(dir); err != nil || n != j.revision || string(text) != j.text {
			t.Errorf("kept: %d, %q, %v; enforced: %d, %q", n, text, err, j.revision, j.text)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Errorf("answer %q", w.Body)
		}
	})
}
