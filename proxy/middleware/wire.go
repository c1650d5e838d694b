// SPDX-License-Identifier: Apache-2.0

package middleware

import (
	"errors"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of docs/middleware.proto, field by field. Why no generated code does this:
// docs/design/0004-middleware.md.

const (
	operationHTTPRequest  = 1
	phasePreCredentials   = 1
	decisionAllow         = 1
	decisionDeny          = 2
	serviceName           = "openshell.middleware.v1.SupervisorMiddleware"
	methodDescribe        = "Describe"
	methodValidateConfig  = "ValidateConfig"
	methodEvaluateRequest = "EvaluateHttpRequest"
)

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendBytes(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// encodeStruct is a google.protobuf.Struct of JSON's values.
func encodeStruct(m map[string]any) []byte {
	var b []byte
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		entry := appendString(nil, 1, k)
		entry = appendBytes(entry, 2, encodeValue(m[k]))
		b = appendBytes(b, 1, entry)
	}
	return b
}

func encodeValue(v any) []byte {
	switch v := v.(type) {
	case float64:
		return protowire.AppendFixed64(protowire.AppendTag(nil, 2, protowire.Fixed64Type), math.Float64bits(v))
	case string:
		return appendBytes(nil, 3, []byte(v))
	case bool:
		return protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), protowire.EncodeBool(v))
	case map[string]any:
		return appendBytes(nil, 5, encodeStruct(v))
	case []any:
		var list []byte
		for _, e := range v {
			list = appendBytes(list, 1, encodeValue(e))
		}
		return appendBytes(nil, 6, list)
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 0) // null
}

// evaluation is the request for a service, or the code of what is too large for
// one.
func evaluation(req *Request, c *call, config []byte, name string) ([]byte, error) {
	process := appendString(nil, 1, req.Process.Binary)
	process = appendNumber(process, 2, uint64(max(0, req.Process.Pid)))
	for _, a := range req.Process.Ancestors {
		process = appendBytes(process, 3, []byte(a))
	}
	context := appendString(nil, 1, c.id)
	context = appendString(context, 2, c.sandbox)
	context = appendBytes(context, 3, process)
	target := appendString(nil, 1, req.Scheme)
	target = appendString(target, 2, req.Host)
	target = appendNumber(target, 3, uint64(req.Port))
	target = appendString(target, 4, req.Method)
	target = appendString(target, 5, req.Path)
	target = appendString(target, 6, req.Query)
	lines := visible(req.Header)
	var headers []byte
	for _, l := range lines {
		if !utf8.ValidString(l.value) {
			return nil, code("request_header_not_text")
		}
		headers = appendBytes(headers, 5, appendString(appendString(nil, 1, l.name), 2, l.value))
	}
	switch {
	case len(context) > maxContext:
		return nil, code("request_context_over_capacity")
	case len(target) > maxTarget:
		return nil, code("request_target_over_capacity")
	case len(lines) > maxHeaders:
		return nil, code("request_header_count_over_capacity")
	case len(headers) > maxHeaderBytes:
		return nil, code("request_header_bytes_over_capacity")
	}
	b := make([]byte, 0, len(context)+len(config)+len(target)+len(headers)+len(req.Body)+len(name)+maxContext)
	b = appendNumber(b, 1, phasePreCredentials)
	b = appendBytes(b, 2, context)
	b = appendBytes(b, 3, config)
	b = appendBytes(b, 4, target)
	b = append(b, headers...)
	if len(req.Body) > 0 {
		b = appendBytes(b, 6, req.Body)
	}
	return appendString(b, 7, name), nil
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte
	value  uint64
}

var errWire = errors.New("no message of the protocol")

// fields calls each for every field of a message that is a number or bytes.
func fields(b []byte, each func(f field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

func (f *field) text(to *string) error {
	if f.kind != protowire.BytesType || !utf8.Valid(f.bytes) {
		return errWire
	}
	*to = string(f.bytes)
	return nil
}

func (f *field) number64(to *uint64) error {
	if f.kind != protowire.VarintType {
		return errWire
	}
	*to = f.value
	return nil
}

func (f *field) message(each func(f field) error) error {
	if f.kind != protowire.BytesType {
		return errWire
	}
	return fields(f.bytes, each)
}

// binding is what a service can do.
type binding struct {
	operation, phase, maxBody uint64
	timeout                   string
}

func decodeManifest(b []byte) (out []binding, err error) {
	err = fields(b, func(f field) error {
		if f.number != 3 {
			return nil
		}
		var n binding
		out = append(out, n)
		at := &out[len(out)-1]
		return f.message(func(f field) error {
			switch f.number {
			case 1:
				return f.number64(&at.operation)
			case 2:
				return f.number64(&at.phase)
			case 3:
				return f.number64(&at.maxBody)
			case 4:
				return f.text(&at.timeout)
			default: // of a later version
				return nil
			}
		})
	})
	return out, err
}

func decodeValidation(b []byte) (valid bool, reason string, err error) {
	var v uint64
	err = fields(b, func(f field) error {
		switch f.number {
		case 1:
			return f.number64(&v)
		case 2:
			return f.text(&reason)
		default: // of a later version
			return nil
		}
	})
	return v != 0, reason, err
}

// answer is a service's on one request.
type answer struct {
	decision   uint64
	reasonCode string
	body       []byte
	hasBody    bool
	mutations  []mutation
	// findings is how many things the service says that it found.
	findings int
}

// decodeAnswer reads a result, or returns the code of what is wrong with it.
func decodeAnswer(b []byte) (*answer, error) {
	a := &answer{}
	var reason string
	var hasBody uint64
	mutationBytes, metadata, metadataBytes, findings := 0, 0, 0, 0
	var tooLarge error
	err := fields(b, func(f field) error {
		switch f.number {
		case 1:
			return f.number64(&a.decision)
		case 2:
			return f.text(&reason)
		case 3:
			if f.kind != protowire.BytesType {
				return errWire
			}
			a.body = f.bytes
		case 4:
			return f.number64(&hasBody)
		case 5:
			mutationBytes += len(f.bytes)
			m, err := decodeMutation(&f)
			a.mutations = append(a.mutations, m)
			return err
		case 6:
			if len(f.bytes) > maxFinding {
				tooLarge = code("response_finding_over_capacity")
			}
			findings++
			var count uint64
			err := f.message(func(f field) error {
				if f.number == 3 {
					return f.number64(&count)
				}
				return nil
			})
			a.findings += int(min(max(count, 1), math.MaxUint16))
			return err
		case 7:
			metadata++
			metadataBytes += len(f.bytes)
		case 8:
			return f.text(&a.reasonCode)
		default: // of a later version
		}
		return nil
	})
	a.hasBody = hasBody != 0
	switch {
	case err != nil:
		return nil, code("invalid_response")
	case tooLarge != nil:
		return nil, tooLarge
	case len(a.body) > MaxBody:
		return nil, code("response_body_over_capacity")
	case len(reason) > maxReason:
		return nil, code("response_reason_over_capacity")
	case a.reasonCode != "" && !stable(a.reasonCode):
		return nil, code("response_reason_code_invalid")
	case mutationBytes > maxMutationWire:
		return nil, code("header_mutation_bytes_over_capacity")
	case findings > maxFindings:
		return nil, code("response_findings_over_capacity")
	case metadata > maxMetadataEntries:
		return nil, code("response_metadata_count_over_capacity")
	case metadataBytes > maxMetadata:
		return nil, code("response_metadata_bytes_over_capacity")
	case a.decision != decisionAllow && a.decision != decisionDeny:
		return nil, codeDecision
	}
	return a, nil
}

func decodeMutation(f *field) (m mutation, err error) {
	operations := 0
	err = f.message(func(f field) error {
		if f.number != 1 && f.number != 2 {
			return nil
		}
		operations++
		m = mutation{remove: f.number == 2}
		return f.message(func(f field) error {
			switch {
			case f.number == 1:
				return f.text(&m.name)
			case f.number == 2 && !m.remove:
				return f.text(&m.value)
			case f.number == 3 && !m.remove:
				return f.number64(&m.existing)
			}
			return nil
		})
	})
	if err == nil && operations != 1 {
		err = errWire
	}
	return m, err
}

// stable says whether a reason code is one that a requester may be told.
func stable(s string) bool {
	if len(s) > maxReasonCode || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
