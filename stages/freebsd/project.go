package freebsd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Env is what a stage may use of the machine. Only Work must be set.
type Env struct {
	// Work is the stage's own folder, kept by key until the stage succeeds.
	Work string
	// Jobs is how many processes may run at once.
	Jobs int
	// Objects is a folder for object trees that stages share, by key; empty
	// keeps every stage's objects in Work.
	Objects string
	// State is a folder for what is remembered of source trees; empty
	// remembers nothing.
	State string
	// Progress gets lines that say where a build is; nil is silence.
	Progress func(line string)
}

func (e Env) say(format string, args ...any) {
	if e.Progress != nil {
		e.Progress(fmt.Sprintf(format, args...))
	}
}

// Runner runs commands with their logs in the stage's folder.
func (e Env) Runner() Runner {
	return Runner{Logs: filepath.Join(e.Work, "logs"), Progress: e.Progress}
}

// Project is one source tree with the choices that all its stages share. Its
// methods may be called side by side; content and toolchain are looked at once.
type Project struct {
	// Dir is the source tree.
	Dir string
	// Arch is "amd64" or "arm64".
	Arch string
	// Toolchain is LLVM's bin folder; empty for a FreeBSD host's own.
	Toolchain string
	// Without and With are src.conf(5) options.
	Without, With []string
	// Host is runtime.GOOS; a test may set another.
	Host string
	// Reader names the tree's content.
	Reader Reader

	once  sync.Once
	facts Facts
	err   error
}

// Facts are what was found out about a project.
type Facts struct {
	Source    Source
	Toolchain Toolchain
	Content   Content
	// SrcConf is the text of src.conf(5).
	SrcConf string
	// Stamp is what newvers.sh says of version control in kernels.
	Stamp string
}

// Look checks tree, toolchain and options and names the tree's content. The
// work is done once; what a later change of the tree would say is not asked,
// so that all stages of one run build the same thing.
func (p *Project) Look(ctx context.Context) (Facts, error) {
	p.once.Do(func() { p.facts, p.err = p.look(ctx) })
	return p.facts, p.err
}

func (p *Project) look(ctx context.Context) (Facts, error) {
	var f Facts
	var err error
	if f.Source, err = Open(p.Dir, p.Arch); err != nil {
		return f, err
	}
	if f.SrcConf, err = SrcConf(p.Without, p.With); err != nil {
		return f, err
	}
	if err = checkMakePy(f.Source, p.host(), p.Toolchain); err != nil {
		return f, err
	}
	if f.Toolchain, err = FindToolchain(ctx, f.Source, p.Toolchain, p.host()); err != nil {
		return f, err
	}
	f.Stamp = versionControlStamp(ctx, f.Source)
	f.Content, err = p.Reader.Read(ctx, f.Source)
	return f, err
}

func (p *Project) host() string {
	if p.Host == "" {
		return runtime.GOOS
	}
	return p.Host
}

func checkMakePy(s Source, host, toolchain string) error {
	b := Build{Source: s, Host: host, Toolchain: Toolchain{Bin: toolchain}}
	if !b.foreign() {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "tools/build/make.py")); err != nil {
		return fmt.Errorf("%q has no tools/build/make.py, through which a host that is not FreeBSD builds it; use FreeBSD 13 or later, or build on FreeBSD", s.Dir)
	}
	return nil
}

// Inputs are what every stage of the project depends on, with the content of
// what this one reads. The options of src.conf are not among them: they are
// the userland's alone (see UserlandInputs).
func (f Facts) Inputs(reads []string) (map[string]string, error) {
	in, err := f.Content.Select(reads)
	if err != nil {
		return nil, err
	}
	in["toolchain"] = f.Toolchain.Identity
	in["arch"] = f.Source.Arch
	return in, nil
}

// UserlandInputs are Inputs with the options of src.conf(5). Kernels and tools
// are built without those options: WITHOUT_CDDL, say, would take away the
// ctfconvert that GENERIC wants, and no kernel should be built again because
// the world is to have no games.
func (f Facts) UserlandInputs(reads []string) (map[string]string, error) {
	in, err := f.Inputs(reads)
	if err == nil {
		in["src.conf"] = strings.Join(strings.Fields(f.SrcConf), " ")
	}
	return in, err
}

// objectsKey names the object tree that stages of the same source and
// toolchain share.
func (f Facts) objectsKey() (string, error) {
	in, err := f.Inputs(f.Content.WorldReads())
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(in)) {
		fmt.Fprintf(h, "%q %q\n", k, in[k])
	}
	// Objects hold the tree's path, though what is installed does not.
	fmt.Fprintf(h, "dir %q\n", f.Source.Dir)
	return fmt.Sprintf("%x", h.Sum(nil)[:12]), nil
}

// Build is how make is called with its objects in a folder and with the text
// of a src.conf(5).
func (p *Project) Build(ctx context.Context, env Env, objects, srcConf string) (Build, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return Build{}, err
	}
	b := Build{Source: f.Source, Toolchain: f.Toolchain, Host: p.host(), Objects: objects, Jobs: env.Jobs,
		SrcConf: filepath.Join(env.Work, "src.conf"), Temp: filepath.Join(env.Work, "tmp")}
	for _, dir := range []string{b.Objects, b.Temp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return b, fmt.Errorf("making a folder for the build: %w", err)
		}
	}
	if err := os.WriteFile(b.SrcConf, []byte(srcConf), 0o644); err != nil {
		return b, fmt.Errorf("writing src.conf: %w", err)
	}
	return b, p.bootstrap(ctx, env, b)
}

// bootstrap lets make.py build its bmake, one build of a source tree at a time:
// bmake's build works within the tree.
func (p *Project) bootstrap(ctx context.Context, env Env, b Build) error {
	if !b.foreign() {
		return nil
	}
	state := first(env.State, env.Work)
	file := Reader{State: state}.stateFile(b.Source.Dir, "bootstrap.lock")
	unlock, err := lock(ctx, file, false, func() { env.say("waiting for another build that begins in %s", b.Source.Dir) })
	if err != nil {
		return err
	}
	defer unlock()
	return env.Runner().Run(ctx, "bootstrap", b.Bootstrap())
}
