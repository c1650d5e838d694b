// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/bytesize"
	"openshell.dev/runtime/libsandbox/container"
)

var updateCommand = &cli.Command{
	Name:      "update",
	Usage:     "update container resource constraints",
	ArgsUsage: "<container-id>",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "resources", Aliases: []string{"r"}, Usage: "path to the file containing the resources to update (runtime-spec's linux.resources) or '-' to read from the standard input; all other options but the schemas are ignored"},
		&cli.StringFlag{Name: "blkio-weight", Usage: "Specifies per cgroup weight, range is from 10 to 1000"},
		&cli.StringFlag{Name: "cpu-period", Usage: "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default"},
		&cli.StringFlag{Name: "cpu-quota", Usage: "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"},
		&cli.StringFlag{Name: "cpu-burst", Usage: "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period"},
		&cli.StringFlag{Name: "cpu-share", Usage: "CPU shares (relative weight vs. other containers)"},
		&cli.StringFlag{Name: "cpu-rt-period", Usage: "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default"},
		&cli.StringFlag{Name: "cpu-rt-runtime", Usage: "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period"},
		&cli.StringFlag{Name: "cpuset-cpus", Usage: "CPU(s) to use"},
		&cli.StringFlag{Name: "cpuset-mems", Usage: "Memory node(s) to use"},
		&cli.StringFlag{Name: "kernel-memory", Usage: "(obsoleted; do not use)", Hidden: true},
		&cli.StringFlag{Name: "kernel-memory-tcp", Usage: "(obsoleted; do not use)", Hidden: true},
		&cli.StringFlag{Name: "memory", Usage: "Memory limit (in bytes)"},
		&cli.StringFlag{Name: "cpu-idle", Usage: "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"},
		&cli.StringFlag{Name: "memory-reservation", Usage: "Memory reservation or soft_limit (in bytes)"},
		&cli.StringFlag{Name: "memory-swap", Usage: "Total memory usage (memory + swap); set '-1' to enable unlimited swap"},
		&cli.IntFlag{Name: "pids-limit", Usage: "Maximum number of pids allowed in the container"},
		&cli.StringFlag{Name: "l3-cache-schema", Usage: "The string of Intel RDT/CAT L3 cache schema"},
		&cli.StringFlag{Name: "mem-bw-schema", Usage: "The string of Intel RDT/MBA memory bandwidth schema"},
	},
	Action: func(c *cli.Context) error {
		return on(c, func(ctr *container.Container) error {
			r, err := resources(c)
			if err != nil {
				return err
			}
			return ctr.Update(container.Update{
				Resources: *r, L3CacheSchema: c.String("l3-cache-schema"), MemBwSchema: c.String("mem-bw-schema"),
			})
		})
	},
}

// resources are those of the file, or those of the flags.
func resources(c *cli.Context) (*specs.LinuxResources, error) {
	// A limit is not checked against the use of now unless the file says so.
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{CheckBeforeUpdate: new(false)}, CPU: &specs.LinuxCPU{},
		BlockIO: &specs.LinuxBlockIO{}, Pids: &specs.LinuxPids{},
	}
	if file := c.String("resources"); file != "" {
		return r, readResources(file, r)
	}
	if c.IsSet("pids-limit") {
		r.Pids.Limit = new(int64(c.Int("pids-limit")))
	}
	r.CPU.Cpus, r.CPU.Mems = c.String("cpuset-cpus"), c.String("cpuset-mems")
	return r, errors.Join(
		number(c, "blkio-weight", &r.BlockIO.Weight, parseWeight),
		number(c, "cpu-burst", &r.CPU.Burst, parseUnsigned),
		number(c, "cpu-period", &r.CPU.Period, parseUnsigned),
		number(c, "cpu-rt-period", &r.CPU.RealtimePeriod, parseUnsigned),
		number(c, "cpu-share", &r.CPU.Shares, parseUnsigned),
		number(c, "cpu-idle", &r.CPU.Idle, parseSigned),
		number(c, "cpu-quota", &r.CPU.Quota, parseSigned),
		number(c, "cpu-rt-runtime", &r.CPU.RealtimeRuntime, parseSigned),
		number(c, "memory", &r.Memory.Limit, parseSize),
		number(c, "memory-swap", &r.Memory.Swap, parseSize),
		number(c, "memory-reservation", &r.Memory.Reservation, parseSize),
		number(c, "kernel-memory", &r.Memory.Kernel, parseSize),
		number(c, "kernel-memory-tcp", &r.Memory.KernelTCP, parseSize),
	)
}

func readResources(file string, r *specs.LinuxResources) error {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if err := readJSON(in, file, r); err != nil {
		return fmt.Errorf("read resources: %w", err)
	}
	return nil
}

// number sets *to from a flag; a flag that is not given leaves nil.
func number[T any](c *cli.Context, flag string, to **T, parse func(string) (T, error)) error {
	text := c.String(flag)
	if text == "" {
		return nil
	}
	n, err := parse(text)
	if err != nil {
		return fmt.Errorf("invalid value for %s: %w", flag, err)
	}
	*to = &n
	return nil
}

func parseUnsigned(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }

func parseSigned(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

func parseWeight(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

// parseSize reads a number of bytes with a unit; -1 is without limit.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return bytesize.Parse(s)
}
