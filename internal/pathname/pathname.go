// SPDX-License-Identifier: Apache-2.0

// Package pathname compares paths as text, without the file system.
package pathname

import "strings"

// Below reports whether name is folder or is below it. Both must be clean, as path.Clean
// returns them.
func Below(name, folder string) bool {
	return name == folder || folder == "/" || strings.HasPrefix(name, folder+"/")
}
