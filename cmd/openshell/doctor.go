// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"openshell.dev/runtime/internal/decisionlog"
	"openshell.dev/runtime/internal/proxyapi"
	"openshell.dev/runtime/libsandbox/features"
	"openshell.dev/runtime/libsandbox/landlock"
	"openshell.dev/runtime/libsandbox/operator"
)

// grade says how a check came out.
type grade string

const (
	gradeOK      grade = "ok"
	gradeLimited grade = "limited" // sandboxes work, and something is weaker or not set up
	gradeMissing grade = "missing" // no sandbox can be made
)

// check is one fact about this machine and, unless all is well, how to get the
// rest.
type check struct {
	Name  string `json:"name"`
	Grade grade  `json:"grade"`
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"`
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "say what this kernel and machine can enforce; status 3 if no sandbox can be made",
		Flags: []cli.Flag{
			outputFlag(),
			operatorFlag(),
			&cli.StringFlag{Name: "docker-config", Usage: "dockerd's configuration `FILE`", Value: "/etc/docker/daemon.json"},
		},
		Action: doctorAction,
	}
}

func doctorAction(c *cli.Context) error {
	if c.NArg() != 0 {
		return cli.Exit("openshell doctor: want no arguments", exitUsage)
	}
	have, err := features.Probe()
	if err != nil {
		return err
	}
	bin, err := proxyapi.Beside("")
	if err != nil {
		return err
	}
	checks := kernelChecks(have)
	checks = append(checks, userCheck(os.Geteuid()), programCheck(bin), configCheck(c.String("config"), have), dockerCheck(c.String("docker-config"), bin))
	if wantsJSON(c) {
		err = printJSON(c, checks)
	} else {
		err = printChecks(c, checks)
	}
	if err == nil && slices.ContainsFunc(checks, func(k check) bool { return k.Grade == gradeMissing }) {
		return cli.Exit("", exitProblems)
	}
	return err
}

func printChecks(c *cli.Context, checks []check) error {
	w := tabwriter.NewWriter(c.App.Writer, 0, 1, 2, ' ', 0)
	for _, k := range checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.Grade, k.Name, k.Found)
		if k.Fix != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", k.Fix)
		}
	}
	return w.Flush()
}

// scopesABI is the first Landlock ABI that keeps signals and abstract sockets
// inside.
const scopesABI = 6

func kernelChecks(f features.Features) []check {
	out := []check{{Name: "kernel", Grade: gradeOK, Found: f.Kernel}}
	ll := check{Name: "landlock", Grade: gradeOK, Found: fmt.Sprintf("ABI %d", f.LandlockABI)}
	switch {
	case f.LandlockABI == 0:
		ll.Grade, ll.Found = gradeMissing, "none"
		ll.Fix = "boot Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK and landlock in lsm= (cat /sys/kernel/security/lsm); landlock.floor: 0 in the operator's configuration does without"
	case f.LandlockABI < scopesABI:
		ll.Grade = gradeLimited
		ll.Fix = fmt.Sprintf("ABI %d (Linux 6.12) also keeps signals and abstract sockets inside", scopesABI)
	case f.LandlockABI > landlock.MaxABI:
		ll.Found += fmt.Sprintf(", used as %d", landlock.MaxABI)
	}
	out = append(out, ll)
	sc := check{Name: "seccomp", Grade: gradeOK, Found: "filters"}
	if f.SeccompError != "" {
		sc = check{"seccomp", gradeMissing, f.SeccompError, "boot a kernel with CONFIG_SECCOMP_FILTER"}
	}
	nf := check{Name: "nf_tables", Grade: gradeOK, Found: "usable"}
	if f.NFTablesError != "" {
		nf = check{"nf_tables", gradeMissing, f.NFTablesError, "run as root on a kernel with nf_tables (modprobe nf_tables), its NAT, FIB and reject, and conntrack zones"}
	}
	cg := check{Name: "cgroup", Grade: gradeOK, Found: string(f.Cgroup)}
	if f.Cgroup == features.CgroupNone {
		cg.Grade, cg.Fix = gradeMissing, "mount control groups at /sys/fs/cgroup"
	}
	ov := check{Name: "overlay", Grade: gradeOK, Found: "there"}
	if !f.Overlay {
		ov = check{"overlay", gradeLimited, "not loaded", "openshell run --rootfs needs it: modprobe overlay"}
	}
	return append(out, sc, nf, cg, ov)
}

func userCheck(uid int) check {
	if uid != 0 {
		return check{"user", gradeMissing, fmt.Sprintf("uid %d", uid), "sandboxes are made as root: use sudo"}
	}
	return check{Name: "user", Grade: gradeOK, Found: "root"}
}

// programs belong beside this one.
var programs = []string{proxyapi.ProgramRuntime, proxyapi.ProgramLaunch, proxyapi.ProgramProxy, proxyapi.ProgramRefresher}

func programCheck(dir string) check {
	var missing []string
	for _, p := range programs {
		if st, err := os.Stat(filepath.Join(dir, p)); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return check{"programs", gradeMissing, fmt.Sprintf("not in %s: %s", dir, orNone(missing)), "install all programs of one version into one folder (make build)"}
	}
	return check{Name: "programs", Grade: gradeOK, Found: "all in " + dir}
}

func configCheck(file string, have features.Features) check {
	c, err := operator.LoadConfig(file)
	switch {
	case err != nil:
		return check{"configuration", gradeMissing, clean(decisionlog.OneLine(err.Error())), "mend the file: nothing is made under a configuration that cannot be read"}
	case *c.Landlock.Floor > have.LandlockABI:
		return check{"configuration", gradeMissing, fmt.Sprintf("landlock.floor is %d, the kernel's ABI %d", *c.Landlock.Floor, have.LandlockABI), "boot a newer kernel or lower the floor"}
	case c.Policy == operator.PolicyNone:
		return check{"configuration", gradeLimited, "policy: none", "containers without a policy of their own are no sandboxes; name a policy to change that"}
	}
	policy := c.Policy
	if policy == "" {
		policy = "built-in default"
	}
	return check{Name: "configuration", Grade: gradeOK, Found: "default policy: " + clean(policy)}
}

// dockerCheck looks for the runtime in dockerd's configuration.
func dockerCheck(file, bin string) check {
	fix := fmt.Sprintf(`to use it with docker run --runtime openshell, add to %s and restart dockerd: {"runtimes":{"openshell":{"path":%q}}}`, file, filepath.Join(bin, proxyapi.ProgramRuntime))
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return check{"docker", gradeLimited, "no " + file, fix}
	}
	var config struct {
		Runtimes map[string]struct {
			Path string `json:"path"`
		} `json:"runtimes"`
	}
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		return check{"docker", gradeLimited, clean(decisionlog.OneLine(err.Error())), fix}
	}
	var names []string
	for name, r := range config.Runtimes {
		if filepath.Base(r.Path) == proxyapi.ProgramRuntime {
			names = append(names, clean(name))
		}
	}
	if len(names) == 0 {
		return check{"docker", gradeLimited, "not registered in " + file, fix}
	}
	slices.Sort(names)
	return check{Name: "docker", Grade: gradeOK, Found: "registered as " + orNone(names)}
}
