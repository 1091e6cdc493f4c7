package kernel

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// files is a folder of configurations.
func files(m map[string]string) func(string) (string, error) {
	return func(name string) (string, error) {
		if text, ok := m[name]; ok {
			return text, nil
		}
		return "", fmt.Errorf("%q: %w", name, os.ErrNotExist)
	}
}

func TestAConfigurationIsResolvedAsConfigWould(t *testing.T) {
	c, err := Resolve("MINE", files(map[string]string{
		"DEFAULTS":    "machine amd64\ndevice isa\noptions GEOM_PART_GPT\n",
		"GENERIC":     "ident GENERIC\ninclude \"std.nodebug\"\noptions \tINET, INET6\t# the internet\noptions SCSI_DELAY=5000\ndevice em, re\ndevices sound\nhints \"GENERIC # hints\"\n",
		"std.nodebug": "nooptions INET6\noptions KDB\n",
		"MINE":        "include GENERIC\nident MINE\nnooptions KDB\nnodevices re,sound\noptions \"TARFS\"\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	options, devices := strings.Join(slices.Sorted(maps.Keys(c.Options)), " "), strings.Join(slices.Sorted(maps.Keys(c.Devices)), " ")
	// An include's "nooptions" comes before what follows it, so INET6 stays.
	if want := `GEOM_PART_GPT INET INET6 SCSI_DELAY TARFS`; options != want {
		t.Errorf("options are %s, want %s", options, want)
	}
	if c.Options["SCSI_DELAY"] != "5000" || devices != "em isa" || c.Ident != "MINE" {
		t.Errorf("got %+v", c)
	}
}

func TestIncludesThatLeadNowhere(t *testing.T) {
	for text, want := range map[string]string{
		"include MINE\n":      "more than 16 deep",
		"\ninclude MISSING\n": "MINE:2: reading the kernel configuration \"MISSING\"",
	} {
		_, err := Resolve("MINE", files(map[string]string{"MINE": text}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %q", text, err, want)
		}
	}
}

func TestTheNewConfigurationIsPlainAndWhole(t *testing.T) {
	generic := Config{Devices: map[string]bool{"sound": true, "snd_hda": true, "snd_ich": true, "wlan": true, "wlan_wep": true, "ath": true, "em": true, "ahci": true}}
	got, err := Request{Config: "DISKLESS", Include: "GENERIC", Options: []string{"TARFS", "ROOTDEVNAME=\\\"nfs:\\\""}, NoOptions: []string{"DDB"},
		Devices: []string{"igb"}, NoDevices: []string{"sound", "wlan", "snd_ich", "ahc*"}}.Text(generic)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Made by rhizome from a recipe; GENERIC itself is left alone.\n" +
		"include\t\tGENERIC\nident\t\tDISKLESS\n\nnooptions\tDDB\noptions\tTARFS\noptions\tROOTDEVNAME=\\\"nfs:\\\"\n" +
		"nodevice\tsound\nnodevice\tsnd_hda\nnodevice\tsnd_ich\nnodevice\twlan\nnodevice\twlan_wep\nnodevice\tath\nnodevice\tahci\ndevice\tigb\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, bad := range []string{"A B", "A\ninclude /etc/passwd", "A#", ""} {
		if _, err := (Request{Config: "X", Include: "GENERIC", Options: []string{bad}}).Text(generic); err == nil {
			t.Errorf("the option %q was written down", bad)
		}
	}
}

func TestWhatADisklessKernelNeeds(t *testing.T) {
	whole := func() Config {
		return Config{Options: map[string]string{"INET": "", "NFSCL": "", "NFS_ROOT": ""}, Devices: map[string]bool{"em": true}}
	}
	nodes := []Node{{Name: "n1"}, {Name: "n2", Modules: []string{"if_ix", "tmpfs"}}}
	for name, c := range map[string]struct {
		change            func(*Config)
		missing, warnings string
	}{
		"the loader's way needs no BOOTP": {func(*Config) {}, "", ""},
		"no NFS root":                     {func(c *Config) { delete(c.Options, "NFS_ROOT") }, `option NFS_ROOT, needed by the nodes "n1", "n2"`, ""},
		"no driver, but a module for one": {func(c *Config) { delete(c.Devices, "em") }, `a network driver (such as device em, or if_em_load="YES" in loader.conf), needed by the node "n1"`, ""},
		"half of BOOTP":                   {func(c *Config) { c.Options["BOOTP"] = "" }, "option BOOTP_NFSROOT (the configuration has BOOTP", ""},
		"the other half":                  {func(c *Config) { c.Options["BOOTP_NFSROOT"] = "" }, "option BOOTP (the configuration has BOOTP_NFSROOT", ""},
		"all of BOOTP on 15.1":            {func(c *Config) { c.Options["BOOTP"], c.Options["BOOTP_NFSROOT"] = "", "" }, "", "bootpc_call: sosend: 65"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := whole()
			c.change(&conf)
			got := Check(conf, "15.1", nodes)
			if m := strings.Join(got.Missing, "; "); (m == "") != (c.missing == "") || !strings.Contains(m, c.missing) {
				t.Errorf("missing %q, want %q", m, c.missing)
			}
			if w := strings.Join(got.Warnings, "; "); (w == "") != (c.warnings == "") || !strings.Contains(w, c.warnings) {
				t.Errorf("warnings %q, want %q", w, c.warnings)
			}
		})
	}
	old := whole()
	old.Options["BOOTP"], old.Options["BOOTP_NFSROOT"] = "", ""
	if got := Check(old, "13.2", nodes); len(got.Warnings) != 0 {
		t.Errorf("13.2 is warned of what only 15 does: %v", got.Warnings)
	}
	if got := Check(Config{Devices: map[string]bool{"em": true}}, "15.1", nil); len(got.Missing) != 3 || !strings.Contains(got.Missing[0], "every diskless node") {
		t.Errorf("without nodes: %v", got.Missing)
	}
}

func TestMisspeltOptionsAreGuessed(t *testing.T) {
	known := map[string]bool{}
	ParseOptions("# options\nNFS_ROOT opt_nfsroot.h\n\nNFSCL\nSCHED_ULE\topt_sched.h\n#X y\n", known)
	if len(known) != 3 {
		t.Errorf("known options are %v", known)
	}
	if got := Unknown([]string{"NFSCL", "NFS_ROOT=1", "DEV_ISA", "NFSROOT"}, known); fmt.Sprint(got) != "[NFSROOT]" {
		t.Errorf("unknown are %v", got)
	}
	for word, want := range map[string]string{"NFSROOT": "[NFS_ROOT]", "SCHED": "[SCHED_ULE]", "WARP": "[]"} {
		if got := fmt.Sprint(Near(word, known)); got != want {
			t.Errorf("%s is near %s, want %s", word, got, want)
		}
	}
}

func TestModulesAreReadOutOfLoaderConf(t *testing.T) {
	got := Modules(map[string]string{"if_igb_load": `"YES"`, "zfs_load": "NO", "tarfs_load": "yes", "console": "comconsole"})
	if fmt.Sprint(got) != "[if_igb tarfs]" {
		t.Errorf("got %v", got)
	}
}

// Whatever resolves is resolved the same when it is written down plainly.
func FuzzResolve(f *testing.F) {
	f.Add("ident A\noptions B=1, C # x\ndevice d\nnodevice e\n")
	f.Add("options \"a#b\"\ninclude X\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Resolve("X", files(map[string]string{"X": text}))
		if err != nil {
			return
		}
		again := "ident " + c.Ident + "\n"
		for k, v := range c.Options {
			if strings.ContainsAny(k+v, "\"# \t\r\v\f\u0085\u00a0") {
				return
			}
			if again += "options " + k; v != "" {
				again += "=" + v
			}
			again += "\n"
		}
		d, err := Resolve("X", files(map[string]string{"X": again}))
		if err != nil || !maps.Equal(c.Options, d.Options) {
			t.Errorf("%q gives %v and then %v, %v", text, c.Options, d.Options, err)
		}
	})
}
