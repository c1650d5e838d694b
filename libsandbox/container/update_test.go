// SPDX-License-Identifier: Apache-2.0

package container

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Quota and period are one setting of the kernel. A change of one of them keeps the other.
func TestUpdateCPU(t *testing.T) {
	for _, tc := range []struct {
		name   string
		cpu    *specs.LinuxCPU
		period uint64
		quota  int64
		shares uint64
		cpuset string
		idle   bool
	}{
		{"nothing clears both", nil, 0, 0, 512, "", false},
		{"quota keeps the period", &specs.LinuxCPU{Quota: new(int64(5000))}, 100000, 5000, 512, "", false},
		{"period keeps the quota", &specs.LinuxCPU{Period: new(uint64(2000))}, 2000, 50000, 512, "", false},
		{"both", &specs.LinuxCPU{Period: new(uint64(2000)), Quota: new(int64(-1))}, 2000, -1, 512, "", false},
		{"shares", &specs.LinuxCPU{Shares: new(uint64(100)), Cpus: "0"}, 0, 0, 100, "0", false},
		{"idle takes no weight", &specs.LinuxCPU{Idle: new(int64(1))}, 0, 0, 0, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &cgroups.Resources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512}
			updateCPU(r, tc.cpu)
			if r.CpuPeriod != tc.period || r.CpuQuota != tc.quota || r.CpuShares != tc.shares || r.CpusetCpus != tc.cpuset || (r.CPUIdle != nil) != tc.idle {
				t.Errorf("period %d quota %d shares %d cpus %q idle %v", r.CpuPeriod, r.CpuQuota, r.CpuShares, r.CpusetCpus, r.CPUIdle)
			}
		})
	}
}

// The last entry of a device is changed. Other entries stay, and so does the container's
// present list, until the kernel has accepted the new one.
func TestUpdateDevices(t *testing.T) {
	now := []*cgroups.ThrottleDevice{
		cgroups.NewThrottleDevice(8, 0, 1), cgroups.NewThrottleDevice(8, 16, 2), cgroups.NewThrottleDevice(8, 0, 3),
	}
	change := specs.LinuxThrottleDevice{Rate: 9}
	change.Major = 8
	added := specs.LinuxThrottleDevice{Rate: 7}
	added.Major, added.Minor = 9, 1
	list := now
	throttle(&list, []specs.LinuxThrottleDevice{change, added})
	rates := func(l []*cgroups.ThrottleDevice) (out []uint64) {
		for _, d := range l {
			out = append(out, d.Rate)
		}
		return out
	}
	if d := cmp.Diff([]uint64{1, 2, 9, 7}, rates(list)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]uint64{1, 2, 3}, rates(now)); d != "" {
		t.Errorf("what the container has: %s", d)
	}

	weights := []*cgroups.WeightDevice{cgroups.NewWeightDevice(8, 0, 100, 200)}
	w := specs.LinuxWeightDevice{Weight: new(uint16(300))}
	w.Major = 8
	got := weigh(weights, w)
	if len(got) != 1 || got[0].Weight != 300 || got[0].LeafWeight != 200 || weights[0].Weight != 100 {
		t.Errorf("%+v, was %+v", got[0], weights[0])
	}
}
