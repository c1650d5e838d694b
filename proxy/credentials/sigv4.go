// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"openshell.dev/runtime/proxy/memory"
)

// SigningMode is an endpoint's credential_signing.
type SigningMode string

const (
	// SignAuto does what the client's x-amz-content-sha256 says, and signs the
	// body where there is none.
	SignAuto SigningMode = "sigv4"
	// SignBody signs the body.
	SignBody SigningMode = "sigv4:body"
	// SignNoBody leaves the body out of the signature.
	SignNoBody SigningMode = "sigv4:no_body"
)

// Signing is how a request is signed with AWS Signature Version 4.
type Signing struct {
	Mode    SigningMode
	Service string // signing_service
	Region  string // signing_region; empty takes it from the host
}

const (
	unsigned         = "UNSIGNED-PAYLOAD"
	unsignedTrailer  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	contentHash      = "X-Amz-Content-Sha256"
	accessKey        = "AWS_ACCESS_KEY_ID"
	secretKey        = "AWS_SECRET_ACCESS_KEY"
	sessionToken     = "AWS_SESSION_TOKEN"
	inSignature      = "signature"
	globalRegion     = "us-east-1"
	signatureScheme  = "AWS4-"
	signatureInQuery = "x-amz-"
)

// signatureQuery are the parameters of a presigned URL.
var signatureQuery = []string{"algorithm", "credential", "date", "expires", "signedheaders", "signature", "security-token"}

var (
	regionLabel = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}$`) })
	s3Services  = []string{"s3", "s3-outposts", "s3-object-lambda", "s3express"}
)

// dropSignature takes a client's AWS signature out of a query and of h.
func dropSignature(query string, h http.Header) string {
	if strings.HasPrefix(h.Get("Authorization"), signatureScheme) {
		delete(h, "Authorization")
	}
	delete(h, "X-Amz-Security-Token")
	delete(h, "X-Amz-Date")
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		plain, _ := percentDecode(name)
		if after, ok := strings.CutPrefix(strings.ToLower(plain), signatureInQuery); ok && slices.Contains(signatureQuery, after) {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// Sign signs the request with its provider's AWS keys. host is as the Host header
// says it. A body that is signed here is kept whole; one whose hash the client
// declared passes as it comes, since the service checks it.
func (r *Rewritten) Sign(method, host string, s Signing, now time.Time) error {
	fail := func(reason string) error { return &UnresolvedError{Where: inSignature, Reason: reason} }
	region := s.Region
	if region == "" {
		if region = regionOf(r.r.to.Host); region == "" {
			return fail("signing_region is not set and the host names none")
		}
	}
	if s.Service == "" {
		return fail("signing_service is not set")
	}
	keys, err := r.r.awsKeys()
	if err != nil {
		return err
	}
	hash, err := r.payloadHash(s.Mode)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		return fail("the query is malformed")
	}
	path := r.Path
	isS3 := slices.Contains(s3Services, s.Service)
	if plain, ok := percentDecode(path); isS3 && ok && strings.Count(plain, "/") == strings.Count(path, "/") {
		// S3 checks the signature of this spelling, and reads a + that is not escaped as a
		// space.
		path = string(percentEncode(nil, plain, "/"))
		r.Path = path
	}
	req := &http.Request{
		Method: method, Host: host, Header: http.Header{contentHash: {hash}},
		URL: &url.URL{Scheme: "https", Host: host, Opaque: "//" + host + path, RawQuery: query.Encode()},
	}
	for name, values := range r.Header {
		if name != contentHash && (strings.HasPrefix(name, "X-Amz-") || name == "Content-Type" || name == "Content-Md5") {
			req.Header[name] = slices.Clone(values)
		}
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = isS3 })
	if err := signer.SignHTTP(context.Background(), keys, req, hash, s.Service, region, now); err != nil {
		return fail("the signer refuses it") // its error may quote what it was given
	}
	for name, values := range req.Header {
		r.Header[name] = values
	}
	r.Query = req.URL.RawQuery
	return nil
}

// awsKeys are the keys of the provider bound here.
func (r *resolver) awsKeys() (k aws.Credentials, err error) {
	if k.AccessKeyID, err = r.value(accessKey, inSignature); err != nil {
		return k, err
	}
	if k.SecretAccessKey, err = r.value(secretKey, inSignature); err != nil {
		return k, err
	}
	if !slices.ContainsFunc(r.set.providers, func(p *provider) bool {
		return p.newest[sessionToken].Reveal() != "" && p.bound(r.set, r.to)
	}) {
		return k, nil // long-lived keys have none
	}
	k.SessionToken, err = r.value(sessionToken, inSignature)
	return k, err
}

// payloadHash is what the signature says of the body.
func (r *Rewritten) payloadHash(mode SigningMode) (string, error) {
	declared := r.Header.Get(contentHash)
	switch mode {
	case SignNoBody:
		return unsigned, nil
	case SignBody:
		return r.hashBody()
	case SignAuto:
	default:
		return "", &UnresolvedError{Where: inSignature, Reason: fmt.Sprintf("credential_signing %q does not exist", mode)}
	}
	switch {
	case declared == "":
		return r.hashBody()
	case declared == unsigned, declared == unsignedTrailer:
		return declared, nil
	case len(declared) == 2*sha256.Size && strings.Trim(declared, "0123456789abcdef") == "":
		return declared, nil
	}
	return "", &UnresolvedError{Where: inSignature, Reason: "the client signs its body in pieces, which cannot be signed anew; have it send " + unsigned}
}

func (r *Rewritten) hashBody() (string, error) {
	tooLong := &UnresolvedError{Where: inSignature, Reason: fmt.Sprintf("a body of more than %d bytes is not signed", MaxSignedBody)}
	if r.Length > MaxSignedBody {
		return "", tooLong
	}
	body, err := memory.ReadAll(context.Background(), r.r.hold, r.Body, r.Length, MaxSignedBody)
	switch {
	case errors.Is(err, memory.ErrExhausted):
		return "", &BusyError{}
	case errors.Is(err, memory.ErrTooLong):
		return "", tooLong
	case err != nil:
		return "", err
	}
	if r.Length >= 0 && int64(len(body)) != r.Length {
		return "", io.ErrUnexpectedEOF
	}
	r.Body, r.Length = opaqueReader{Reader: bytes.NewReader(body)}, int64(len(body))
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

// regionOf is the region that an AWS host names.
func regionOf(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	var aws bool
	for _, suffix := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws"} {
		var is bool
		host, is = strings.CutSuffix(host, suffix)
		aws = aws || is
	}
	if !aws {
		return ""
	}
	labels := strings.Split(host, ".")
	for _, l := range slices.Backward(labels) {
		if l = strings.TrimPrefix(l, "s3-"); regionLabel().MatchString(l) {
			return l
		}
	}
	return globalRegion
}
