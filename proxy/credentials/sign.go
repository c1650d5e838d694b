// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"openshell.dev/runtime/internal/secret"
)

// AWSKeys are what AWS knows a caller by; Session is empty for long-lived ones.
type AWSKeys struct {
	ID      string
	Secret  secret.Secret
	Session secret.Secret
}

// SignRequest signs a request of the proxy's own, whose body is given. No error holds
// a key.
func (k *AWSKeys) SignRequest(req *http.Request, body []byte, service, region string, now time.Time) error {
	keys := aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret.Reveal(), SessionToken: k.Session.Reveal()}
	if keys.AccessKeyID == "" || keys.SecretAccessKey == "" {
		return errors.New("the AWS keys are empty or expired")
	}
	if region == "" {
		if region = regionOf(req.URL.Hostname()); region == "" {
			return errors.New("no region is set and the host names none")
		}
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	req.Header.Set(contentHash, hash)
	if err := v4.NewSigner().SignHTTP(context.Background(), keys, req, hash, service, region, now); err != nil {
		return errors.New("the signer refuses the request") // its error may quote what it was given
	}
	return nil
}
