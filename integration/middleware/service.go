// SPDX-License-Identifier: Apache-2.0

// Package middleware is a middleware service for tests: docs/middleware.proto, served by
// the usual gRPC library, which is independent of the proxy's own client.
package middleware

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/bufbuild/protocompile"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// maxMessage is the largest message in bytes. It is more than the protocol allows.
const maxMessage = 5 << 20

// Evaluation is a request as the service received it.
type Evaluation struct {
	Phase   string
	Context struct {
		RequestID          string
		SandboxID          string
		OriginatingProcess struct {
			Binary    string
			Pid       int
			Ancestors []string
		}
	}
	Config map[string]any
	Target struct {
		Scheme, Host, Method, Path, Query string
		Port                              int
	}
	Headers        []struct{ Name, Value string }
	Body           []byte
	MiddlewareName string
}

// Result is a response, with the names of JSON's mapping of the protocol.
type Result map[string]any

// Allow is the response that changes nothing.
var Allow = Result{"decision": "DECISION_ALLOW"}

// Service responds with the results of its functions. If a function is nil, it accepts.
type Service struct {
	Manifest map[string]any
	Validate func(config map[string]any) (valid bool, reason string)
	Evaluate func(ctx context.Context, e *Evaluation) (Result, error)

	mu   sync.Mutex
	seen []*Evaluation
}

// Seen returns the requests that the service received.
func (s *Service) Seen() []*Evaluation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Evaluation(nil), s.seen...)
}

// Serve serves on l until the returned server is stopped.
func (s *Service) Serve(l net.Listener, o ...grpc.ServerOption) (*grpc.Server, error) {
	service, err := protocol()
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(append(o, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))...)
	desc := grpc.ServiceDesc{ServiceName: string(service.FullName()), HandlerType: (*any)(nil)}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: string(m.Name()),
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.answer(ctx, m, decode)
			},
		})
	}
	server.RegisterService(&desc, s)
	go func() { _ = server.Serve(l) }() // until it is stopped
	return server, nil
}

func (s *Service) answer(ctx context.Context, m protoreflect.MethodDescriptor, decode func(any) error) (any, error) {
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if err := decode(in); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(in)
	if err != nil {
		return nil, err
	}
	var answer any
	switch m.Name() {
	case "Describe":
		answer = s.Manifest
		if s.Manifest == nil {
			answer = map[string]any{"name": "test", "bindings": []any{map[string]any{
				"operation": "SUPERVISOR_MIDDLEWARE_OPERATION_HTTP_REQUEST", "phase": "SUPERVISOR_MIDDLEWARE_PHASE_PRE_CREDENTIALS", "maxBodyBytes": 4 << 20,
			}}}
		}
	case "ValidateConfig":
		answer = map[string]any{"valid": true}
		if s.Validate != nil {
			var asked struct{ Config map[string]any }
			if err := json.Unmarshal(text, &asked); err != nil {
				return nil, err
			}
			valid, reason := s.Validate(asked.Config)
			answer = map[string]any{"valid": valid, "reason": reason}
		}
	default:
		e := &Evaluation{}
		if err := json.Unmarshal(text, e); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.seen = append(s.seen, e)
		s.mu.Unlock()
		answer = Allow
		if s.Evaluate != nil {
			if answer, err = s.Evaluate(ctx, e); err != nil {
				return nil, err
			}
		}
	}
	if text, err = json.Marshal(answer); err != nil {
		return nil, err
	}
	return out, protojson.Unmarshal(text, out)
}

// protocol reads docs/middleware.proto.
func protocol() (protoreflect.ServiceDescriptor, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return nil, fmt.Errorf("no source to find docs/middleware.proto by")
	}
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		ImportPaths: []string{filepath.Join(filepath.Dir(here), "..", "..", "docs")},
	})}
	files, err := c.Compile(context.Background(), "middleware.proto")
	if err != nil {
		return nil, fmt.Errorf("read docs/middleware.proto: %w", err)
	}
	return files[0].Services().ByName("SupervisorMiddleware"), nil
}
