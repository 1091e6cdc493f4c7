package recipes

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v4"
)

func stages(d *decoder, n *yaml.Node, into *draft) {
	for _, item := range d.items(n) {
		var s Stage
		before := len(d.findings)
		stageKeys().decode(d, item, &s)
		if s.Kind == "" && len(d.findings) == before {
			d.fail(item, "a stage names what it does", "its kinds are "+kindNames())
			continue
		}
		into.Stages = append(into.Stages, s)
	}
}

func kindNames() string {
	m := stageKeys()
	m.keys = m.keys[:len(m.keys)-1]
	return m.names()
}

// stageKeys is the table of an element of "stages": one kind, and "nodes".
func stageKeys() mapping[Stage] {
	return mapping[Stage]{
		title: "a stage",
		intro: "Exactly one kind, and the nodes it is for.",
		pos:   func(s *Stage) *Pos { return &s.Pos },
		keys: []key[Stage]{
			{name: "world", shape: "mapping", example: "world: {without: [TESTS]}", doc: "FreeBSD: buildworld and installworld.",
				set: kind("world", worldKeys(), func(s *Stage) **World { return &s.World })},
			{name: "distribution", shape: "mapping", example: "distribution: {}", doc: "FreeBSD: make distribution, which fills /etc.",
				set: kind("distribution", distributionKeys(), func(s *Stage) **Distribution { return &s.Distribution })},
			{name: "kernel", shape: "mapping", example: "kernel: {name: default}", doc: "A kernel with its modules, as a layer of its own.",
				set: kind("kernel", kernelKeys(), func(s *Stage) **Kernel { return &s.Kernel })},
			{name: "packages", shape: "mapping, or a list of names", example: "packages: [tmux]", doc: "More packages, with the system's own package manager.",
				set: packagesStage},
			{name: "files", shape: "mapping, or a folder", example: "files: overlay/", doc: "A folder of the recipe, copied over the root.",
				set: kind("files", filesKeys(), func(s *Stage) **Files { return &s.Files })},
			{name: "script", shape: "mapping, or a command", example: "script: {run: ./tune.sh, inputs: [tune.sh]}", doc: "A command over the tree, in a sandbox without network.",
				set: kind("script", scriptKeys(), func(s *Stage) **Script { return &s.Script })},
			{name: "media", shape: "mapping", example: "media: {ipxe: true}", doc: "Linux: boot programs for the nodes' firmware.",
				set: kind("media", mediaKeys(), func(s *Stage) **Media { return &s.Media })},
			{name: "early", shape: "mapping", example: "early: {}", doc: "The early script and `rhizome-node`: what makes `tmpfs`, `etc`, `persist` and `root` true on a node, before its init.",
				set: kind("early", earlyKeys(), func(s *Stage) **Early { return &s.Early })},
			{name: "nodes", shape: "node set", def: "every node", example: "nodes: n[1-4]", doc: "The nodes whose root gets this layer.",
				set: text(func(s *Stage) *string { return &s.Nodes })},
		},
	}
}

// kind is a setter for one kind of stage, which refuses a second kind in the
// same element.
func kind[S any](name string, m mapping[S], get func(*Stage) **S) setter[Stage] {
	read := part(m, get)
	return func(d *decoder, n *yaml.Node, into *Stage) {
		if claim(d, n, name, into) {
			read(d, n, into)
		}
	}
}

func claim(d *decoder, n *yaml.Node, name string, s *Stage) bool {
	if s.Kind != "" {
		d.fail(n, fmt.Sprintf("one stage is both %q and %q", s.Kind, name), "begin a new element of the list with \"- \"")
		return false
	}
	s.Kind = name
	return true
}

// packagesStage takes a bare list of names as well as the mapping.
func packagesStage(d *decoder, n *yaml.Node, into *Stage) {
	if n.Kind == yaml.SequenceNode {
		if claim(d, n, "packages", into) {
			into.Packages = &Packages{}
			d.key = "names"
			texts(func(p *Packages) *[]string { return &p.Names })(d, n, into.Packages)
		}
		return
	}
	kind("packages", packagesKeys(), func(s *Stage) **Packages { return &s.Packages })(d, n, into)
}

func worldKeys() mapping[World] {
	return mapping[World]{
		title: "a world stage",
		keys: []key[World]{
			{name: "without", shape: "list of knobs", def: "[]", example: "without: [TESTS, LIB32]", doc: "Become WITHOUT_x in src.conf(5).",
				set: texts(func(w *World) *[]string { return &w.Without })},
			{name: "with", shape: "list of knobs", def: "[]", example: "with: [REPRODUCIBLE_BUILD]", doc: "Become WITH_x in src.conf(5).",
				set: texts(func(w *World) *[]string { return &w.With })},
		},
	}
}

func distributionKeys() mapping[Distribution] {
	return mapping[Distribution]{title: "a distribution stage", intro: "It has no keys: write `distribution: {}`."}
}

func earlyKeys() mapping[Early] {
	return mapping[Early]{title: "an early stage", intro: "It has no keys: write `early: {}`. See [node.md](node.md)."}
}

func kernelKeys() mapping[Kernel] {
	return mapping[Kernel]{
		title: "a kernel stage",
		intro: "`config` to `nodevices` are FreeBSD's, `packages` is Linux's; `modules` means a list of modules to build on FreeBSD.",
		keys: []key[Kernel]{
			{name: "name", shape: "name", def: "that of `config`, or `default`", example: "name: default", doc: "What nodes choose it by.",
				set: text(func(k *Kernel) *string { return &k.Name })},
			{name: "config", shape: "name", example: "config: DISKLESS", doc: "An existing kernel configuration; with `include`, the name of a new one.",
				set: text(func(k *Kernel) *string { return &k.Config })},
			{name: "include", shape: "name", example: "include: GENERIC", doc: "The configuration that the new one includes.",
				set: text(func(k *Kernel) *string { return &k.Include })},
			{name: "options", shape: "list", def: "[]", example: "options: [TARFS]", doc: "Kernel options to add.",
				set: texts(func(k *Kernel) *[]string { return &k.Options })},
			{name: "nooptions", shape: "list", def: "[]", example: "nooptions: [DDB]", doc: "Kernel options to take away.",
				set: texts(func(k *Kernel) *[]string { return &k.NoOptions })},
			{name: "devices", shape: "list", def: "[]", example: "devices: [ix]", doc: "Devices to add.",
				set: texts(func(k *Kernel) *[]string { return &k.Devices })},
			{name: "nodevices", shape: "list", def: "[]", example: "nodevices: [sound]", doc: "Devices to take away.",
				set: texts(func(k *Kernel) *[]string { return &k.NoDevices })},
			{name: "packages", shape: "list of names", def: "[linux-image-ARCH]", example: "packages: [linux-image-cloud-amd64]", doc: "The packages that bring the kernel.",
				set: texts(func(k *Kernel) *[]string { return &k.Packages })},
			{name: "modules", shape: "list of names", def: "[]", example: "modules: [mlx5_core]", doc: "Linux: modules for the initramfs beside the shipped list. FreeBSD: the folders of sys/modules to build, instead of all.",
				set: texts(func(k *Kernel) *[]string { return &k.Modules })},
		},
	}
}

func packagesKeys() mapping[Packages] {
	return mapping[Packages]{
		title: "a packages stage",
		keys: []key[Packages]{
			{name: "names", shape: "list of names", required: true, example: "names: [tmux]", doc: "The packages.",
				set: texts(func(p *Packages) *[]string { return &p.Names })},
			{name: "repository", shape: "folder or URL", example: "repository: https://pkg.freebsd.org/FreeBSD:15:amd64/latest", doc: "FreeBSD: the package repository.",
				set: text(func(p *Packages) *string { return &p.Repository })},
		},
	}
}

func filesKeys() mapping[Files] {
	return mapping[Files]{
		title: "files", short: "from",
		intro: "Symlinks are kept. A file that is executable or begins with `#!` gets mode 0755, any other 0644: what a checkout's umask did plays no part. " +
			"A folder leaves owner and mode of the same folder below alone, unless a rule names it or nothing lies in it. " +
			"Rules are globs over the path in the root (`/etc/ssh/*`, `/srv/**`); where several match, the longest wins.",
		pos: func(f *Files) *Pos { return &f.Pos },
		keys: []key[Files]{
			{name: "from", shape: "folder of the recipe", required: true, example: "from: overlay/", doc: "The folder to copy.",
				set: text(func(f *Files) *string { return &f.From })},
			{name: "template", shape: "`true` or `false`", def: "false", example: "template: true", doc: "Expand files that end in `.tmpl`.",
				set: boolean(func(f *Files) *bool { return &f.Template })},
			{name: "owners", shape: "mapping of globs to `uid:gid`", def: "0:0", example: "owners: {/srv/**: \"1000:1000\"}", doc: "Owners, as numbers.",
				set: rules(func(f *Files) *map[string]string { return &f.Owners })},
			{name: "modes", shape: "mapping of globs to octal modes", def: "see above", example: "modes: {/etc/sudoers: \"0440\"}", doc: "Permission bits.",
				set: rules(func(f *Files) *map[string]string { return &f.Modes })},
		},
	}
}

func scriptKeys() mapping[Script] {
	return mapping[Script]{
		title: "a script stage", short: "run",
		keys: []key[Script]{
			{name: "run", shape: "command", required: true, example: "run: ./tune.sh", doc: "The command, run by sh.",
				set: text(func(s *Script) *string { return &s.Run })},
			{name: "inputs", shape: "list of files and folders of the recipe", def: "[]", example: "inputs: [tune.sh]", doc: "What the command may read; part of the stage's key.",
				set: texts(func(s *Script) *[]string { return &s.Inputs })},
		},
	}
}

func mediaKeys() mapping[Media] {
	return mapping[Media]{
		title: "a media stage",
		keys: []key[Media]{
			{name: "ipxe", shape: "`true` or `false`", def: "false", example: "ipxe: true", doc: "iPXE for BIOS and UEFI firmware.",
				set: boolean(func(m *Media) *bool { return &m.IPXE })},
			{name: "pxelinux", shape: "`true` or `false`", def: "false", example: "pxelinux: true", doc: "pxelinux for BIOS firmware.",
				set: boolean(func(m *Media) *bool { return &m.PXELinux })},
		},
	}
}

// octal reads permission bits as chmod(1) takes them.
func octal(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o7777 {
		return 0, fmt.Errorf("%s are no octal permission bits", clip(s))
	}
	return uint32(v), nil
}
