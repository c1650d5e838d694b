// SPDX-License-Identifier: Apache-2.0

package sigv4

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// example is the one in AWS's documentation of Signature Version 4 for S3:
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
func example() *http.Request {
	return &http.Request{
		Method: "GET", RequestURI: "/test.txt", Host: "examplebucket.s3.amazonaws.com",
		Header: http.Header{
			"Range": {"bytes=0-9"}, "X-Amz-Date": {"20130524T000000Z"},
			"X-Amz-Content-Sha256": {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
			"Authorization":        {"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		},
	}
}

var (
	exampleKeys = Keys{ID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	exampleTime = time.Date(2013, 5, 24, 0, 1, 0, 0, time.UTC)
)

func TestVerify(t *testing.T) {
	s3 := Service{"s3", "us-east-1"}
	if err := Verify(example(), nil, exampleKeys, s3, exampleTime); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *http.Request) (body string, k Keys, now time.Time){
		"path": func(r *http.Request) (string, Keys, time.Time) {
			r.RequestURI = "/test.tx"
			return "", exampleKeys, exampleTime
		},
		"query": func(r *http.Request) (string, Keys, time.Time) {
			r.RequestURI += "?a"
			return "", exampleKeys, exampleTime
		},
		"method": func(r *http.Request) (string, Keys, time.Time) { r.Method = "PUT"; return "", exampleKeys, exampleTime },
		"host":   func(r *http.Request) (string, Keys, time.Time) { r.Host = "other"; return "", exampleKeys, exampleTime },
		"header": func(r *http.Request) (string, Keys, time.Time) {
			r.Header.Set("Range", "bytes=0-8")
			return "", exampleKeys, exampleTime
		},
		"body": func(r *http.Request) (string, Keys, time.Time) { return "x", exampleKeys, exampleTime },
		"secret": func(r *http.Request) (string, Keys, time.Time) {
			return "", Keys{ID: exampleKeys.ID, Secret: "x"}, exampleTime
		},
		"id": func(r *http.Request) (string, Keys, time.Time) {
			return "", Keys{ID: "x", Secret: exampleKeys.Secret}, exampleTime
		},
		"token": func(r *http.Request) (string, Keys, time.Time) {
			r.Header.Set("X-Amz-Security-Token", "x")
			return "", exampleKeys, exampleTime
		},
		"unsigned": func(r *http.Request) (string, Keys, time.Time) {
			r.Header.Set("X-Amz-Acl", "public")
			return "", exampleKeys, exampleTime
		},
		"late": func(r *http.Request) (string, Keys, time.Time) { return "", exampleKeys, exampleTime.Add(time.Hour) },
		"two": func(r *http.Request) (string, Keys, time.Time) {
			r.Header.Add("Authorization", "Bearer x")
			return "", exampleKeys, exampleTime
		},
		"signature": func(r *http.Request) (string, Keys, time.Time) {
			a := r.Header["Authorization"]
			a[0] = strings.TrimSuffix(a[0], "1") + "2"
			return "", exampleKeys, exampleTime
		},
	} {
		r := example()
		body, k, now := change(r)
		if err := Verify(r, []byte(body), k, s3, now); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Verify(example(), nil, exampleKeys, Service{"s3", "eu-west-1"}, exampleTime); err == nil {
		t.Error("region: accepted")
	}
}
