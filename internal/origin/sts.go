// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/internal/secret"
)

// stsRegion is the region of the endpoint if none is configured. session is the session
// name in AWS's log.
const (
	stsRegion = "us-east-1"
	session   = "openshell"
)

// assumeRole gets temporary keys of a role from AWS.
type assumeRole struct {
	c Config
	o *provider.Origin
}

// errorCode matches the error codes of AWS.
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
	caller := credentials.NewStaticCredentialsProvider(s.get("aws_access_key_id", ""), s.get("aws_secret_access_key", ""), s.get("aws_session_token", ""))
	if s.o.Settings[provider.Ambient] != "" {
		var err error
		if caller.Value, err = s.ambient(ctx); err != nil {
			return nil, err
		}
	}
	client := sts.New(sts.Options{
		Region: s.get("aws_region", stsRegion), HTTPClient: s.c.client(nil), RetryMaxAttempts: 1, Credentials: caller,
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
		if code := codeOf(err); code != "" {
			return nil, plain("AWS STS refuses: " + code)
		}
		return nil, err
	}
	if !keys.CanExpire || keys.Expires.IsZero() {
		return nil, plain("AWS STS gave keys that do not end")
	}
	return &Made{
		Value:   secret.New(keys.AccessKeyID),
		Expires: keys.Expires,
		Outputs: map[string]secret.Secret{
			"secret_access_key": secret.New(keys.SecretAccessKey), "session_token": secret.New(keys.SessionToken),
		},
	}, nil
}

// codeOf returns the error code of AWS, or "" if the error is not AWS's.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) && errorCode().MatchString(api.ErrorCode()) {
		return api.ErrorCode()
	}
	return ""
}

// chain guards AWS's own credential chain, which reads this process's environment. The
// environment is empty except while chain is held.
var chain sync.Mutex

// ambient returns the keys that AWS's own chain finds with the environment of the person
// who configured the refresh: in variables, in AWS's files, by a web identity, or from the
// machine's metadata. It does not run programs that these files name: the refresher may run
// none.
func (s *assumeRole) ambient(ctx context.Context) (aws.Credentials, error) {
	chain.Lock()
	defer chain.Unlock()
	for _, name := range slices.Concat(provider.AmbientVariables, provider.SecretVariables) {
		if v := s.get(name, ""); v != "" {
			if err := os.Setenv(name, v); err != nil {
				return aws.Credentials{}, plain("the setting " + name + " is not text")
			}
			defer os.Unsetenv(name)
		}
	}
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(s.c.client(nil)), config.WithRegion(s.get("aws_region", stsRegion)), config.WithRetryMaxAttempts(1),
	}
	if s.o.TokenURL != "" {
		options = append(options, config.WithBaseEndpoint(s.o.TokenURL))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err == nil {
		var keys aws.Credentials
		if keys, err = c.Credentials.Retrieve(ctx); err == nil {
			return keys, nil
		}
	}
	if code := codeOf(err); code != "" {
		return aws.Credentials{}, plain("AWS refuses this machine's credentials: " + code)
	}
	return aws.Credentials{}, plain("AWS's own chain finds no credentials on this machine that it can use")
}
