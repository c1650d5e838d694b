// SPDX-License-Identifier: Apache-2.0

// Package proxyapi holds what the runtime, the CLI, the refresher and the processes of
// the proxy must agree on: the documents that they send each other, the descriptors that
// carry them, and the names, ports and marks that more than one of them uses.
package proxyapi
