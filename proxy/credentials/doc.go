// SPDX-License-Identifier: Apache-2.0

// Package credentials puts real credentials where a sandbox sent placeholders.
//
// A sandbox holds only names, such as openshell:resolve:env:GITHUB_TOKEN. A Set
// knows the values, and for each the provider it belongs to and the endpoints
// that provider is bound to. [Set.Request] turns a judged request into the one
// that is sent upstream: a placeholder becomes its value only at an endpoint of
// its own provider and only on a verified TLS connection; everywhere else it is an
// error, and so is a placeholder that cannot be resolved. What an upstream echoes
// of a value is masked on the way back, by [Rewritten.ResponseHeader] and
// [Rewritten.ResponseBody].
//
// The package is given bytes and headers and gives them back. It opens nothing.
package credentials
