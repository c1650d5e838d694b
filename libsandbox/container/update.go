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

// Update describes a change of a container's resources.
type Update struct {
	// Resources are the new limits. A limit that is not set stays as it is.
	Resources specs.LinuxResources
	// L3CacheSchema and MemBwSchema are settings of Intel RDT. The zero value keeps the old
	// one. Any other value is an error if the container has no group of Intel RDT.
	L3CacheSchema, MemBwSchema string
}

// Update changes the container's cgroups, and its group of Intel RDT if it has one. It does
// not change device rules.
func (c *Container) Update(u Update) error {
	config := c.c.Config()
	if u.Resources.Memory != nil && (u.Resources.Memory.Kernel != nil || u.Resources.Memory.KernelTCP != nil) { // engines still send them
		logrus.Warn("Kernel memory settings are ignored and will be removed")
	}
	// The manager of the cgroups may have the same struct. So this works on a copy, which
	// Set takes as a whole.
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

// set sets *to, unless v is empty.
func set(to *string, v string) {
	if v != "" {
		*to = v
	}
}

// assign sets *to, unless v is nil.
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
	// If only one of the two is given, the old value of the other one stays: cgroup v2 needs
	// both in one write.
	if period != 0 || quota == 0 {
		r.CpuPeriod = period
	}
	if quota != 0 || period == 0 {
		r.CpuQuota = quota
	}
	shares := c.Shares
	if c.Idle != nil && shares == nil {
		shares = new(uint64(0)) // an idle cgroup cannot have a weight
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
		r.MemorySwap = 0 // without a memory limit there is no swap limit
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

// weigh returns list with the weights of d in the last entry of its device, or in a new entry
// at the end.
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

// throttle sets the rates of devices in *list, or adds them.
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
