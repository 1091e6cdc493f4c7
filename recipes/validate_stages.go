package recipes

import (
	"fmt"
	"strings"
)

func (c *checker) stages() {
	kernels := map[string]Pos{}
	for i := range c.r.Stages {
		s := &c.r.Stages[i]
		c.stageOS(s)
		c.stageNodes(s)
		c.kernel(s, kernels)
		c.packages(s.Packages, s)
		c.files(s.Files)
		c.script(s.Script, s)
		if m := s.Media; m != nil && !m.IPXE && !m.PXELinux {
			c.fail(s.Pos, "write media: {ipxe: true}", "the media stage asks for no boot program")
		}
		if s.Files != nil {
			c.shadowed(s.Files)
		}
	}
	c.once()
	c.missingStages()
}

// once refuses a second stage of a kind that makes the same files each time.
func (c *checker) once() {
	first := map[string]Pos{}
	for i := range c.r.Stages {
		s := &c.r.Stages[i]
		if s.Early == nil && s.World == nil && s.Distribution == nil {
			continue
		}
		if at, ok := first[s.Kind]; ok {
			remedy := "remove one of the two"
			if s.Early != nil {
				remedy += ", or name all its nodes in the first"
			}
			c.fail(s.Pos, remedy, "the stage %q is there twice; first at %s", s.Kind, at)
			continue
		}
		first[s.Kind] = s.Pos
	}
}

// stageOS refuses a stage that the recipe's system or source does not have.
func (c *checker) stageOS(s *Stage) {
	freebsd, linux := c.r.OS == "freebsd", c.r.OS == "linux"
	switch {
	case linux && (s.Kind == "world" || s.Kind == "distribution"):
		c.fail(s.Pos, "remove it; a Linux root comes from its source", "the stage %q builds FreeBSD, but the recipe's os is \"linux\"", s.Kind)
	case freebsd && s.Kind == "media":
		c.fail(s.Pos, "remove it; FreeBSD's loader is the boot program", "the stage \"media\" brings boot programs for Linux, but the recipe's os is \"freebsd\"")
	case freebsd && (s.Kind == "world" || s.Kind == "distribution" || s.Kind == "kernel") && c.r.Source.Src == nil && c.r.Source.Pos.Line > 0:
		c.fail(s.Pos, "write source: {src: /usr/src}, or remove the stage: release sets and images bring theirs", "the stage %q needs a source tree, and the recipe has none", s.Kind)
	}
}

func (c *checker) stageNodes(s *Stage) {
	if s.Nodes == "" || len(c.r.Nodes) == 0 {
		return
	}
	if s.Kind == "world" || s.Kind == "distribution" {
		c.fail(s.at("nodes", s.Pos), "remove it, or describe two clusters", "the stage %q makes what all nodes stand on; it cannot be for some of them", s.Kind)
	}
	if _, err := c.r.Select(s.Nodes); err != nil {
		c.fail(s.at("nodes", s.Pos), "write names, ranges or globs, such as n[1-4],login*", "%v", err)
	}
}

func (c *checker) kernel(s *Stage, have map[string]Pos) {
	k := s.Kernel
	if k == nil {
		return
	}
	at := k.at("name", s.Pos)
	if !kernelName.MatchString(k.Name) {
		c.fail(at, "use letters, digits, \".\", \"_\" and \"-\"", "the kernel name %s cannot be a folder's name", clip(k.Name))
	}
	if first, ok := have[k.Name]; ok {
		c.fail(at, "give one of them another \"name\"", "the kernel %q is made twice; first at %s", k.Name, first)
	} else {
		have[k.Name] = at
	}
	c.kernelKeys(s, k)
}

// kernelKeys refuses keys that the recipe's system does not know, which would
// otherwise be silently without effect.
func (c *checker) kernelKeys(s *Stage, k *Kernel) {
	var wrong []string
	switch c.r.OS {
	case "linux":
		wrong = []string{"config", "include", "options", "nooptions", "devices", "nodevices"}
	case "freebsd":
		wrong = []string{"packages"}
		if k.Config == "" {
			c.fail(s.Pos, "write kernel: {config: GENERIC}, or a new name with include: GENERIC", "the kernel stage has no \"config\"")
		}
		changes := len(k.Options) + len(k.NoOptions) + len(k.Devices) + len(k.NoDevices)
		if changes > 0 && k.Include == "" {
			c.fail(s.Pos, "add include: GENERIC; the tree's own configurations are never edited", "the kernel stage changes options, but includes no configuration")
		}
	}
	for _, name := range wrong {
		if at, ok := k.of[name]; ok {
			c.fail(at, "remove it", "%q of a kernel stage means nothing where the os is %q", name, c.r.OS)
		}
	}
}

func (c *checker) packages(p *Packages, s *Stage) {
	if p == nil {
		return
	}
	c.twice(p.Names, "package", func(i int) Pos { return p.at(fmt.Sprintf("names.%d", i), s.Pos) })
	if len(p.Names) == 0 && p.of != nil {
		c.fail(s.Pos, "name some, or remove the stage", "the packages stage names no package")
	}
}

func (c *checker) script(p *Script, s *Stage) {
	if p == nil {
		return
	}
	if strings.TrimSpace(p.Run) == "" && len(p.of) > 0 {
		c.fail(p.at("run", s.Pos), "name the command", "the script stage runs nothing")
	}
	for i, in := range p.Inputs {
		c.exists(p.at(fmt.Sprintf("inputs.%d", i), s.Pos), in, "input")
	}
}

// missingStages reports the omissions that freeze boots: everything builds,
// and the node stops without a word.
func (c *checker) missingStages() {
	r, have := c.r, map[string]bool{}
	for _, s := range r.Stages {
		have[s.Kind] = true
	}
	at := r.at("stages", r.Pos)
	if r.Source.Src != nil && r.OS == "freebsd" {
		for _, kind := range []string{"world", "distribution", "kernel"} {
			if !have[kind] {
				c.fail(at, fmt.Sprintf("add \"- %s: {}\" to the stages", kind), "a FreeBSD root from source needs the stage %q, and the recipe has none", kind)
			}
		}
	}
	if r.Source.Debian != nil && !have["kernel"] {
		c.fail(at, "add \"- kernel: {}\" to the stages", "the recipe has no kernel stage, so its nodes have nothing to boot")
	}
	if r.OS == "linux" && have["kernel"] && !have["media"] {
		c.warn(at, "add \"- media: {ipxe: true}\" to the stages", "the recipe has no media stage: only machines that bring their own iPXE or boot by UEFI HTTP will boot")
	}
}
