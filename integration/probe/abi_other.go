// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

// foreign is empty: making a 32-bit ARM call needs a program of that architecture.
var foreign []foreignCall
