// SPDX-License-Identifier: Apache-2.0

package proxyapi

import (
	"fmt"
	"os"
	"path/filepath"
)

// Beside returns the path of a program of ours, which is in the folder of the running one.
// The file need not exist.
func Beside(program string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", program, err)
	}
	return filepath.Join(filepath.Dir(self), program), nil
}
