// SPDX-License-Identifier: Apache-2.0

// Package sigv4 checks AWS Signature Version 4 as a service of AWS does, for tests. It
// implements the text of
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
// and uses none of AWS's libraries, which the proxy uses to sign.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	stamp     = "20060102T150405Z"
	// skew is the largest difference between the clocks.
	skew = 15 * time.Minute
)

// Keys are the keys of an account. Token is empty for long-lived keys.
type Keys struct{ ID, Secret, Token string }

// Service is the destination of a request.
type Service struct{ Name, Region string }

// Verify returns an error if the signature of a request with this body, received at now, is
// not valid.
func Verify(r *http.Request, body []byte, k Keys, s Service, now time.Time) error {
	fields, err := parse(r.Header["Authorization"])
	if err != nil {
		return err
	}
	at, err := time.Parse(stamp, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return fmt.Errorf("X-Amz-Date: %w", err)
	}
	if d := now.Sub(at); d > skew || d < -skew {
		return fmt.Errorf("it was signed %s ago", d)
	}
	scope := strings.Join([]string{at.Format("20060102"), s.Region, s.Name, "aws4_request"}, "/")
	if want := k.ID + "/" + scope; fields["Credential"] != want {
		return fmt.Errorf("credential %q, want %q", fields["Credential"], want)
	}
	if got := r.Header.Get("X-Amz-Security-Token"); got != k.Token {
		return fmt.Errorf("session token %q, want %q", got, k.Token)
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if sum := sha256.Sum256(body); len(hash) == 2*sha256.Size && hash != hex.EncodeToString(sum[:]) {
		return errors.New("X-Amz-Content-Sha256 is not the body's")
	}
	signed := strings.Split(fields["SignedHeaders"], ";")
	if !slices.IsSorted(signed) || !slices.Contains(signed, "host") {
		return fmt.Errorf("signed headers %q", signed)
	}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") && !slices.Contains(signed, name) {
			return fmt.Errorf("%s is not signed", name)
		}
	}
	canonical, err := canonicalRequest(r, s, signed, hash)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{algorithm, at.Format(stamp), scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + k.Secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	if want := hex.EncodeToString(mac(key, text)); !hmac.Equal([]byte(want), []byte(fields["Signature"])) {
		return fmt.Errorf("signature %s, want %s of\n%s", fields["Signature"], want, canonical)
	}
	return nil
}

// parse reads the only Authorization header.
func parse(values []string) (map[string]string, error) {
	if len(values) != 1 {
		return nil, fmt.Errorf("%d Authorization headers", len(values))
	}
	rest, ok := strings.CutPrefix(values[0], algorithm+" ")
	if !ok {
		return nil, fmt.Errorf("Authorization is %q", values[0])
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	return fields, nil
}

func canonicalRequest(r *http.Request, s Service, signed []string, hash string) (string, error) {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	if s.Name == "s3" { // "Do not normalize"; encoded once
		plain, err := url.PathUnescape(path)
		if err != nil {
			return "", err
		}
		path = plain
	}
	pairs, err := canonicalQuery(query)
	if err != nil {
		return "", err
	}
	out := r.Method + "\n" + encode(path, "/") + "\n" + pairs + "\n"
	for _, name := range signed {
		values := slices.Clone(r.Header.Values(name))
		if name == "host" {
			values = []string{r.Host}
		}
		for i := range values {
			values[i] = strings.Join(strings.Fields(values[i]), " ")
		}
		out += name + ":" + strings.Join(values, ",") + "\n"
	}
	return out + "\n" + strings.Join(signed, ";") + "\n" + hash, nil
}

func canonicalQuery(query string) (string, error) {
	var pairs [][2]string
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return "", err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return "", err
		}
		pairs = append(pairs, [2]string{encode(name, ""), encode(value, "")})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	var out []string
	for _, p := range pairs {
		out = append(out, p[0]+"="+p[1])
	}
	return strings.Join(out, "&"), nil
}

// encode is UriEncode of the text, which does not encode the characters in keep.
func encode(s, keep string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}
