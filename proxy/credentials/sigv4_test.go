// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"openshell.dev/runtime/integration/sigv4"
	"openshell.dev/runtime/internal/secret"
)

const (
	awsID     = "AKIDEXAMPLE12345"
	awsSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	awsToken  = "session/token+example=="
)

var awsNow = time.Date(2026, 11, 24, 3, 4, 5, 0, time.UTC)

// verify checks the signature of what was sent as a service would.
func verify(t *testing.T, method, host string, service sigv4.Service, r *Rewritten, body, session string) {
	t.Helper()
	got := &http.Request{Method: method, Host: host, RequestURI: r.Path, Header: r.Header}
	if r.Query != "" {
		got.RequestURI += "?" + r.Query
	}
	if err := sigv4.Verify(got, []byte(body), sigv4.Keys{ID: awsID, Secret: awsSecret, Token: session}, service, awsNow); err != nil {
		t.Error(err)
	}
}

func awsSet(t *testing.T, session string) *Set {
	t.Helper()
	s, err := New(Config{MatchHost: func(p, h string) bool { return strings.HasSuffix(h, strings.TrimPrefix(p, "*")) }}, []Provider{{
		Name: "aws", ModelAPI: true, Endpoints: []Endpoint{{Host: "*.amazonaws.com", Ports: []uint16{443}}},
		Credentials: []Credential{{Key: accessKey, Value: secret.New(awsID)}, {Key: secretKey, Value: secret.New(awsSecret)}, {Key: sessionToken, Value: secret.New(session)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSign(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("the body"))
	clientHash := hex.EncodeToString(sum[:])
	for name, c := range map[string]struct {
		host, path, query, hash, session string
		s                                Signing
		region, want                     string
		auth                             string
		sent                             string // if it is another path
	}{
		"body":              {host: "bedrock-runtime.eu-west-1.amazonaws.com", path: "/model/a%3A0/invoke", s: Signing{SignBody, "bedrock", ""}, region: "eu-west-1", want: clientHash},
		"no body":           {host: "bucket.s3.us-west-2.amazonaws.com", path: "/k%20e=y+z/~x", sent: "/k%20e%3Dy%2Bz/~x", query: "uploads&b=2&a=%20%2B", s: Signing{SignNoBody, "s3", ""}, region: "us-west-2", want: unsigned},
		"auto, none":        {host: "sts.amazonaws.com", path: "/", s: Signing{SignAuto, "sts", ""}, region: "us-east-1", want: clientHash},
		"auto, hash":        {host: "s3.amazonaws.com", path: "/b/k", hash: clientHash, s: Signing{SignAuto, "s3", ""}, region: "us-east-1", want: clientHash},
		"auto, unsigned":    {host: "s3.amazonaws.com", path: "/b/k", hash: unsigned, s: Signing{SignAuto, "s3", ""}, region: "us-east-1", want: unsigned},
		"auto, trailer":     {host: "s3.amazonaws.com", path: "/b/k", hash: unsignedTrailer, s: Signing{SignAuto, "s3", ""}, region: "us-east-1", want: unsignedTrailer},
		"region given":      {host: "x.amazonaws.com", path: "/", session: awsToken, s: Signing{SignBody, "x", "ap-south-2"}, region: "ap-south-2", want: clientHash},
		"client's own goes": {host: "s3.amazonaws.com", path: "/", query: "X-Amz-Signature=1&X-Amz-Credential=a&x=1", auth: "AWS4-HMAC-SHA256 Credential=" + Marker + accessKey + "/x, Signature=1", s: Signing{SignBody, "s3", ""}, region: "us-east-1", want: clientHash},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := http.Header{"Content-Type": {"application/json"}, "X-Amz-Target": {"a   b"}, "X-Amz-Date": {"20200101T000000Z"}, "X-Amz-Security-Token": {"foreign"}, "Accept": {"*/*"}}
			if c.hash != "" {
				h.Set("X-Amz-Content-Sha256", c.hash)
			}
			if c.auth != "" {
				h.Set("Authorization", c.auth)
			}
			r, err := awsSet(t, c.session).Request(to(c.host, 443), Options{Signed: true}, c.path, c.query, h, "application/json", 8, strings.NewReader("the body"))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Sign("POST", c.host, c.s, awsNow); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.Length != 8 {
				t.Errorf("%d, %v", r.Length, err)
			}
			verify(t, "POST", c.host, sigv4.Service{Name: c.s.Service, Region: c.region}, r, string(body), c.session)
			if got := r.Header.Get("X-Amz-Content-Sha256"); got != c.want {
				t.Errorf("hash %q, want %q", got, c.want)
			}
			if got := r.Header.Get("X-Amz-Security-Token"); got != c.session {
				t.Errorf("session token %q", got)
			}
			if r.Path != cmp.Or(c.sent, c.path) || strings.Contains(r.Query, "X-Amz-") {
				t.Errorf("%s?%s", r.Path, r.Query)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		host, hash, query string
		s                 Signing
		body              io.Reader
		verified          bool
		want              string
	}{
		"pieces":     {"s3.amazonaws.com", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", Signing{SignAuto, "s3", ""}, nil, true, "in pieces"},
		"bad hash":   {"s3.amazonaws.com", "abc", "", Signing{SignAuto, "s3", ""}, nil, true, "in pieces"},
		"no service": {"s3.amazonaws.com", "", "", Signing{SignAuto, "", ""}, nil, true, "signing_service"},
		"mode":       {"s3.amazonaws.com", "", "", Signing{"", "s3", ""}, nil, true, "does not exist"},
		"query":      {"s3.amazonaws.com", "", "a=%zz", Signing{SignAuto, "s3", ""}, nil, true, "malformed"},
		"huge":       {"s3.amazonaws.com", "", "", Signing{SignBody, "s3", ""}, io.LimitReader(zeros{}, MaxSignedBody+1), true, "not signed"},
		"broken":     {"s3.amazonaws.com", "", "", Signing{SignBody, "s3", ""}, iotest.ErrReader(io.ErrUnexpectedEOF), true, "unexpected EOF"},
		"clear text": {"s3.amazonaws.com", "", "", Signing{SignBody, "s3", ""}, nil, false, "not verified TLS"},
		"elsewhere":  {"s3.evil.example", "", "", Signing{SignBody, "s3", "us-east-1"}, nil, true, "not bound"},
		"no region":  {"s3.evil.example", "", "", Signing{SignBody, "s3", ""}, nil, true, "signing_region"},
	} {
		target := to(c.host, 443)
		target.TLSVerified = c.verified
		h := http.Header{}
		if c.hash != "" {
			h.Set("X-Amz-Content-Sha256", c.hash)
		}
		if c.body == nil {
			c.body = strings.NewReader("")
		}
		r, err := awsSet(t, "").Request(target, Options{Signed: true}, "/", c.query, h, "", -1, c.body)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Sign("PUT", c.host, c.s, awsNow)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), awsSecret) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
		var refusal Refusal
		if name != "broken" && !errors.As(err, &refusal) {
			t.Errorf("%s: %v is no refusal", name, err)
		}
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s: it was signed", name)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRegionOf(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"bedrock-runtime.us-east-1.amazonaws.com": "us-east-1", "b.s3.dualstack.eu-central-1.amazonaws.com": "eu-central-1", "s3-us-west-2.amazonaws.com": "us-west-2",
		"sts.us-gov-west-1.amazonaws.com": "us-gov-west-1", "s3.cn-north-1.amazonaws.com.cn": "cn-north-1", "lambda.eu-west-3.api.aws": "eu-west-3",
		"vpce-1.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com": "ap-southeast-2", "iam.amazonaws.com": "us-east-1", "us-east-1.example": "",
	} {
		if got := regionOf(host); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}
