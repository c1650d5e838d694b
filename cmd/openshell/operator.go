// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/provider"
	"openshell.dev/runtime/libsandbox/operator"
)

// operatorFlag names the operator's configuration. The runtime has the same flag.
func operatorFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "operator's configuration `FILE` (default " + operator.DefaultConfigFile + ")"}
}

// operatorConfig reads the operator's configuration as the runtime does.
func operatorConfig(c *cli.Context) (*operator.Config, error) {
	return operator.LoadConfig(c.String("config"))
}

// configuredPath returns the value of a flag that names a path. Without the flag it
// returns the path that the operator's configuration names.
func configuredPath(c *cli.Context, flag string, field func(*operator.Config) string) (string, error) {
	if p := c.String(flag); p != "" {
		return p, nil
	}
	config, err := operatorConfig(c)
	if err != nil {
		return "", err
	}
	return field(config), nil
}

// policyFile returns the policy file that a command line names: a file, or one of the
// operator's policies by its name.
func policyFile(c *cli.Context, name string) (string, error) {
	if _, err := os.Stat(name); err == nil || strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	config, err := operatorConfig(c)
	if err != nil {
		return "", err
	}
	file := filepath.Join(config.PoliciesDir, strings.TrimSuffix(name, ".yaml")+".yaml")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return name, nil // so that the error is about the name as it was written
}

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Usage: "`DIR` of the providers (default: the operator's providers_dir)"}
}

// storeFlags are the flags of a command that uses the providers.
func storeFlags() []cli.Flag { return []cli.Flag{operatorFlag(), storeFlag()} }

// storeDir is the folder of the providers.
func storeDir(c *cli.Context) (string, error) {
	return configuredPath(c, "store", func(o *operator.Config) string { return o.ProvidersDir })
}

func openStore(c *cli.Context) (*provider.Store, error) {
	dir, err := storeDir(c)
	if err != nil {
		return nil, err
	}
	return provider.Open(dir)
}

func routesFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Usage: "`FILE` of the routes (default: the operator's inference_file)"}
}

// routesFile is the file of the routes of inference.local.
func routesFile(c *cli.Context) (string, error) {
	return configuredPath(c, "file", func(o *operator.Config) string { return o.InferenceFile })
}

func logDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "log-dir", Usage: "`DIR` of all logs (default: the operator's log_dir)"}
}

// logDir is the folder that has one folder of decisions for each sandbox.
func logDir(c *cli.Context) (string, error) {
	return configuredPath(c, "log-dir", func(o *operator.Config) string { return o.LogDir })
}
