// SPDX-License-Identifier: Apache-2.0

package credentials

import (
	"fmt"
	"net/http"

	"openshell.dev/runtime/proxy/memory"
)

// Refusal is an error that ends a request. Its text names keys and places, never a
// value; the client may read it.
type Refusal interface {
	error
	// Status is the HTTP status of the answer.
	Status() int
	// Code is the answer's error field, as OpenShell has it.
	Code() string
}

// MismatchError says that a placeholder was sent where its provider is not bound,
// or over a connection whose other side is not verified.
type MismatchError struct {
	Key    string // empty if it was not read
	Host   string
	Port   uint16
	Where  string
	Reason string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: credential %s may not be sent to %s:%d: %s", e.Where, named(e.Key), e.Host, e.Port, e.Reason)
}

// Status is 403.
func (e *MismatchError) Status() int { return http.StatusForbidden }

// Code is credential_endpoint_mismatch.
func (e *MismatchError) Code() string { return "credential_endpoint_mismatch" }

// UnresolvedError says that a placeholder could not become a value.
type UnresolvedError struct {
	Key    string // empty if it was not read
	Where  string
	Reason string
}

func (e *UnresolvedError) Error() string {
	return fmt.Sprintf("%s: credential %s cannot be put in: %s", e.Where, named(e.Key), e.Reason)
}

// Status is 500.
func (e *UnresolvedError) Status() int { return http.StatusInternalServerError }

// Code is credential_injection_failed.
func (e *UnresolvedError) Code() string { return "credential_injection_failed" }

// MalformedError says that something begins like a placeholder and is none.
type MalformedError struct {
	Where  string
	Reason string
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("%s: malformed credential placeholder: %s", e.Where, e.Reason)
}

// Status is 400.
func (e *MalformedError) Status() int { return http.StatusBadRequest }

// Code is invalid_credential_placeholder.
func (e *MalformedError) Code() string { return "invalid_credential_placeholder" }

// BodyError is the error for a placeholder in a body that is not rewritten, if no attached
// provider has its credential.
type BodyError struct {
	Key string // as far as it has arrived; empty if none follows the marker
}

func (e *BodyError) Error() string { return "body: " + e.Reason() }

// Reason says what is wrong with the placeholder.
func (e *BodyError) Reason() string {
	if e.Key == "" {
		return "no key follows the beginning of a credential placeholder"
	}
	return "no attached provider has the credential that the placeholder names: " + e.Key
}

// Status is 403.
func (e *BodyError) Status() int { return http.StatusForbidden }

// Code is credential_placeholder_in_request_body.
func (e *BodyError) Code() string { return "credential_placeholder_in_request_body" }

// UninspectedError says that a body at an endpoint with credentials cannot be
// searched for placeholders.
type UninspectedError struct{ Reason string }

func (e *UninspectedError) Error() string {
	return "body: cannot be searched for credential placeholders: " + e.Reason
}

// Status is 403.
func (e *UninspectedError) Status() int { return http.StatusForbidden }

// Code is uninspected_credentials.
func (e *UninspectedError) Code() string { return "uninspected_credentials" }

// BusyError is the error for a body that must be kept and for which there is no memory.
type BusyError struct{}

func (e *BusyError) Error() string {
	return "body: " + memory.ErrExhausted.Error()
}

// Status is 503.
func (e *BusyError) Status() int { return http.StatusServiceUnavailable }

// Code is memory_exhausted.
func (e *BusyError) Code() string { return "memory_exhausted" }

// ForeignCredentialError says that a request brought a credential of its own to an
// endpoint that takes only ours.
type ForeignCredentialError struct {
	Where string // such as "header X-Api-Key"
	Host  string
}

func (e *ForeignCredentialError) Error() string {
	return fmt.Sprintf("%s: a credential that is not this sandbox's may not be sent to %s", e.Where, e.Host)
}

// Status is 403.
func (e *ForeignCredentialError) Status() int { return http.StatusForbidden }

// Code is foreign_credential.
func (e *ForeignCredentialError) Code() string { return "foreign_credential" }

// EchoError says that a response cannot be searched for echoed credentials.
type EchoError struct{ Reason string }

func (e *EchoError) Error() string {
	return "response: cannot be searched for echoed credentials: " + e.Reason
}

// Status is 502.
func (e *EchoError) Status() int { return http.StatusBadGateway }

// Code is uninspected_response.
func (e *EchoError) Code() string { return "uninspected_response" }

func named(key string) string {
	if key == "" {
		return "placeholder"
	}
	return key
}
