// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"errors"
	"regexp"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"openshell.dev/runtime/internal/provider"
)

// stsRegion is asked where no other is named, session what AWS's log says.
const (
	stsRegion = "us-east-1"
	session   = "openshell"
)

// assumeRole has AWS make keys of a role for a while.
type assumeRole struct {
	c Config
	o *provider.Origin
}

// errorCode is what AWS calls an error.
var errorCode = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z]{1,64}$`) })

func (s *assumeRole) get(name, otherwise string) string {
	if v := s.o.Material[name].Reveal(); v != "" {
		return v
	}
	if v := s.o.Settings[name]; v != "" {
		return v
	}
	return otherwise
}

func (s *assumeRole) Fetch(ctx context.Context) (*Made, error) {
	client := sts.New(sts.Options{
		Region: s.get("aws_region", stsRegion), HTTPClient: s.c.client(nil), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(s.get("aws_access_key_id", ""), s.get("aws_secret_access_key", ""), s.get("aws_session_token", "")),
	}, func(o *sts.Options) {
		if s.o.TokenURL != "" {
			o.BaseEndpoint = aws.String(s.o.TokenURL)
		}
	})
	role := stscreds.NewAssumeRoleProvider(client, s.get("role_arn", ""), func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = s.get("session_name", session)
		o.Duration = usualLifetime
		if s.o.Lifetime > 0 {
			o.Duration = s.o.Lifetime
		}
		if id := s.get("external_id", ""); id != "" {
			o.ExternalID = aws.String(id)
		}
	})
	keys, err := role.Retrieve(ctx)
	if err != nil {
		var api smithy.APIError
		if errors.As(err, &api) && errorCode().MatchString(api.ErrorCode()) {
			return nil, plain("AWS STS refuses: " + api.ErrorCode())
		}
		return nil, err
	}
	if !keys.CanExpire || keys.Expires.IsZero() {
		return nil, plain("AWS STS gave keys that do not end")
	}
	return &Made{
		Value:   provider.NewSecret(keys.AccessKeyID),
		Expires: keys.Expires,
		Outputs: map[string]provider.Secret{
			"secret_access_key": provider.NewSecret(keys.SecretAccessKey), "session_token": provider.NewSecret(keys.SessionToken),
		},
	}, nil
}
