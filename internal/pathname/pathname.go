// SPDX-License-Identifier: Apache-2.0

// Package pathname compares paths as text.
package pathname

import "strings"

// Below reports whether name is folder or lies below it. Both are clean.
func Below(name, folder string) bool {
	return name == folder || folder == "/" || strings.HasPrefix(name, folder+"/")
}
