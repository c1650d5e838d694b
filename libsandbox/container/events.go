// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/intelrdt"
	"github.com/opencontainers/runc/types"
)

// Event is one line of the verb events, in runc's format.
type Event = types.Event

// Stats measures the container's resources once.
func (c *Container) Stats() (*Event, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	s, err := c.c.Stats()
	if err != nil {
		return nil, err
	}
	return c.statsEvent(s), nil
}

// Events calls each with a measurement at every interval, and with an event whenever the
// kernel kills a process for lack of memory. It returns when the container has ended or ctx
// is done.
func (c *Container) Events(ctx context.Context, interval time.Duration, each func(*Event, error)) error {
	if err := c.alive(); err != nil {
		return err
	}
	oom, err := c.c.NotifyOOM()
	if err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-oom:
			if !ok {
				return nil // the cgroup was removed
			}
			each(&Event{Type: "oom", ID: c.c.ID()}, nil)
		case <-tick.C:
			s, err := c.c.Stats()
			if err != nil {
				each(nil, err)
				continue
			}
			each(c.statsEvent(s), nil)
		}
	}
}

// alive returns an error if the container has stopped.
func (c *Container) alive() error {
	status, err := c.c.Status()
	if err == nil && status == libcontainer.Stopped {
		err = fmt.Errorf("container with id %s is not running", c.c.ID())
	}
	return err
}

func (c *Container) statsEvent(s *libcontainer.Stats) *Event {
	e := &Event{Type: "stats", ID: c.c.ID()}
	if s.CgroupStats != nil {
		e.Data = stats(s)
	}
	return e
}

func stats(from *libcontainer.Stats) *types.Stats {
	cg := from.CgroupStats
	cpu, mem, io := cg.CpuStats, cg.MemoryStats, cg.BlkioStats
	out := &types.Stats{
		CPU: types.Cpu{
			Usage: types.CpuUsage{
				Total: cpu.CpuUsage.TotalUsage, Kernel: cpu.CpuUsage.UsageInKernelmode, User: cpu.CpuUsage.UsageInUsermode,
				Percpu: cpu.CpuUsage.PercpuUsage, PercpuKernel: cpu.CpuUsage.PercpuUsageInKernelmode, PercpuUser: cpu.CpuUsage.PercpuUsageInUsermode,
			},
			Throttling: types.Throttling{
				Periods: cpu.ThrottlingData.Periods, ThrottledPeriods: cpu.ThrottlingData.ThrottledPeriods, ThrottledTime: cpu.ThrottlingData.ThrottledTime,
			},
			PSI: cpu.PSI,
		},
		CPUSet: types.CPUSet(cg.CPUSetStats),
		Memory: types.Memory{
			Cache: mem.Cache, Raw: mem.Stats, PSI: mem.PSI,
			Usage: memory(mem.Usage), Swap: memory(mem.SwapUsage), Kernel: memory(mem.KernelUsage), KernelTCP: memory(mem.KernelTCPUsage),
		},
		Pids: types.Pids{Current: cg.PidsStats.Current, Limit: cg.PidsStats.Limit},
		Blkio: types.Blkio{
			IoServiceBytesRecursive: blkio(io.IoServiceBytesRecursive), IoServicedRecursive: blkio(io.IoServicedRecursive),
			IoQueuedRecursive: blkio(io.IoQueuedRecursive), IoServiceTimeRecursive: blkio(io.IoServiceTimeRecursive),
			IoWaitTimeRecursive: blkio(io.IoWaitTimeRecursive), IoMergedRecursive: blkio(io.IoMergedRecursive),
			IoTimeRecursive: blkio(io.IoTimeRecursive), SectorsRecursive: blkio(io.SectorsRecursive), PSI: io.PSI,
		},
		Hugetlb:           map[string]types.Hugetlb{},
		NetworkInterfaces: from.Interfaces,
	}
	for size, h := range cg.HugetlbStats {
		out.Hugetlb[size] = types.Hugetlb{Usage: h.Usage, Max: h.MaxUsage, Failcnt: h.Failcnt}
	}
	if from.IntelRdtStats != nil {
		out.IntelRdt = rdt(from.IntelRdtStats)
	}
	return out
}

func memory(m cgroups.MemoryData) types.MemoryEntry {
	return types.MemoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt}
}

func blkio(in []cgroups.BlkioStatEntry) []types.BlkioEntry {
	var out []types.BlkioEntry
	for _, e := range in {
		out = append(out, types.BlkioEntry(e))
	}
	return out
}

func rdt(s *intelrdt.Stats) types.IntelRdt {
	out := types.IntelRdt{Schemata: s.Schemata}
	if intelrdt.IsCATEnabled() {
		out.L3CacheInfo = (*types.L3CacheInfo)(s.L3CacheInfo)
		out.L3CacheSchemaRoot, out.L3CacheSchema = s.L3CacheSchemaRoot, s.L3CacheSchema
	}
	if intelrdt.IsMBAEnabled() {
		out.MemBwInfo = (*types.MemBwInfo)(s.MemBwInfo)
		out.MemBwSchemaRoot, out.MemBwSchema = s.MemBwSchemaRoot, s.MemBwSchema
	}
	if intelrdt.IsMBMEnabled() {
		out.MBMStats = s.MBMStats
	}
	if intelrdt.IsCMTEnabled() {
		out.CMTStats = s.CMTStats
	}
	return out
}
