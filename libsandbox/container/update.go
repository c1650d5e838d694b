// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"slices"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/intelrdt"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// Update is what to change of a container's resources.
type Update struct {
	Resources specs.LinuxResources
	// L3CacheSchema and MemBwSchema are Intel RDT's; empty leaves them.
	L3CacheSchema, MemBwSchema string
}

// Update changes the container's cgroups, and Intel RDT group if it has one.
// Device rules stay as they are.
func (c *Container) Update(u Update) error {
	config := c.c.Config()
	if u.Resources.Memory != nil && (u.Resources.Memory.Kernel != nil || u.Resources.Memory.KernelTCP != nil) { // engines still send them
		logrus.Warn("Kernel memory settings are ignored and will be removed")
	}
	// The manager may hold the same struct; it is changed as a whole, in Set.
	r := *config.Cgroups.Resources
	cg := *config.Cgroups
	config.Cgroups, cg.Resources = &cg, &r
	if u.Resources.BlockIO != nil {
		updateBlockIO(&r, u.Resources.BlockIO)
	}
	updateCPU(&r, u.Resources.CPU)
	if m := u.Resources.Memory; m != nil {
		updateMemory(&r, m)
	}
	r.PidsLimit = nil
	if u.Resources.Pids != nil {
		r.PidsLimit = u.Resources.Pids.Limit
	}
	r.Unified = u.Resources.Unified

	if u.L3CacheSchema != "" && !intelrdt.IsCATEnabled() {
		return errors.New("Intel RDT/CAT: l3 cache schema is not enabled")
	}
	if u.MemBwSchema != "" && !intelrdt.IsMBAEnabled() {
		return errors.New("Intel RDT/MBA: memory bandwidth schema is not enabled")
	}
	if u.L3CacheSchema != "" || u.MemBwSchema != "" {
		if config.IntelRdt == nil {
			return errors.New("updating a non-existent Intel RDT configuration is not supported")
		}
		rdt := *config.IntelRdt
		config.IntelRdt = &rdt
		set(&rdt.L3CacheSchema, u.L3CacheSchema)
		set(&rdt.MemBwSchema, u.MemBwSchema)
	}
	cg.SkipDevices = true
	return c.c.Set(config)
}

func set(to *string, v string) {
	if v != "" {
		*to = v
	}
}

func assign[T any](to, v *T) {
	if v != nil {
		*to = *v
	}
}

func updateCPU(r *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		c = &specs.LinuxCPU{}
	}
	var period uint64
	var quota int64
	assign(&period, c.Period)
	assign(&quota, c.Quota)
	// One of the two alone leaves the other: cgroup v2 needs both written.
	if period != 0 || quota == 0 {
		r.CpuPeriod = period
	}
	if quota != 0 || period == 0 {
		r.CpuQuota = quota
	}
	shares := c.Shares
	if c.Idle != nil && shares == nil {
		shares = new(uint64(0)) // an idle cgroup takes no weight
	}
	if shares != nil {
		r.CpuShares = *shares
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*shares)
	}
	r.CpuBurst, r.CPUIdle, r.CpusetCpus, r.CpusetMems = c.Burst, c.Idle, c.Cpus, c.Mems
	assign(&r.CpuRtPeriod, c.RealtimePeriod)
	assign(&r.CpuRtRuntime, c.RealtimeRuntime)
}

func updateMemory(r *cgroups.Resources, m *specs.LinuxMemory) {
	assign(&r.Memory, m.Limit)
	assign(&r.MemoryReservation, m.Reservation)
	assign(&r.MemorySwap, m.Swap)
	if m.Limit != nil && *m.Limit == -1 && m.Swap == nil {
		r.MemorySwap = 0 // a swap limit cannot outlive the memory limit
	}
	assign(&r.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
}

func updateBlockIO(r *cgroups.Resources, b *specs.LinuxBlockIO) {
	assign(&r.BlkioWeight, b.Weight)
	assign(&r.BlkioLeafWeight, b.LeafWeight)
	for _, d := range b.WeightDevice {
		r.BlkioWeightDevice = weigh(r.BlkioWeightDevice, d)
	}
	throttle(&r.BlkioThrottleReadBpsDevice, b.ThrottleReadBpsDevice)
	throttle(&r.BlkioThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice)
	throttle(&r.BlkioThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice)
	throttle(&r.BlkioThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice)
}

// weigh puts d in the place of the last entry of its device, or at the end.
func weigh(list []*cgroups.WeightDevice, d specs.LinuxWeightDevice) []*cgroups.WeightDevice {
	out := slices.Clone(list)
	now := cgroups.NewWeightDevice(d.Major, d.Minor, 0, 0)
	for i, old := range slices.Backward(out) {
		if old.Major == d.Major && old.Minor == d.Minor {
			*now = *old
			out[i] = now
			assign(&now.Weight, d.Weight)
			assign(&now.LeafWeight, d.LeafWeight)
			return out
		}
	}
	assign(&now.Weight, d.Weight)
	assign(&now.LeafWeight, d.LeafWeight)
	return append(out, now)
}

func throttle(list *[]*cgroups.ThrottleDevice, changes []specs.LinuxThrottleDevice) {
	out := slices.Clone(*list)
	for _, d := range changes {
		now := cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate)
		at := -1
		for i, old := range out {
			if old.Major == d.Major && old.Minor == d.Minor {
				at = i
			}
		}
		if at < 0 {
			out = append(out, now)
		} else {
			out[at] = now
		}
	}
	*list = out
}
