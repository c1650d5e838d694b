// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// signed makes a request as AWS's SDK does, with the keys in its environment.
func signed(ctx context.Context, method, target, body string, h2 bool) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		report("", err)
	}
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	req.Header.Set("X-Amz-Content-Sha256", hash)
	keys := aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")}
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hash, "s3", "us-east-1", time.Now()); err != nil {
		report("", err)
	}
	perform(req, http.ProxyFromEnvironment, h2)
}

// message sends a text on a WebSocket and prints the reply.
func message(ctx context.Context, target, text string) {
	d := ws.Dialer{TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}}}
	conn, _, _, err := d.Dial(ctx, target)
	if err != nil {
		report("", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
		report("", err)
	}
	answer, err := wsutil.ReadServerText(conn)
	report(string(answer), err)
}
