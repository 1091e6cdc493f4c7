package freebsd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// versionControlStamp is what sys/conf/newvers.sh finds out about version
// control and stamps into kernels: commit, count of commits and branch of the
// repository that the tree lies in. It is empty where newvers.sh asks nothing,
// or would find no git.
func versionControlStamp(ctx context.Context, s Source) string {
	script, err := os.ReadFile(filepath.Join(s.Dir, "sys/conf/newvers.sh"))
	if err != nil || !strings.Contains(string(script), "rev-parse") {
		return ""
	}
	git := ""
	for _, dir := range []string{"/usr/bin", "/usr/local/bin"} {
		if _, err := os.Stat(dir + "/git"); err == nil && git == "" {
			git = dir + "/git"
		}
	}
	if git == "" {
		return ""
	}
	var words []string
	for _, args := range [][]string{
		{"rev-parse", "--verify", "--short=12", "HEAD"}, {"rev-parse", "--is-shallow-repository"},
		{"rev-list", "--first-parent", "--count", "HEAD"}, {"rev-parse", "--abbrev-ref", "HEAD"},
	} {
		// newvers.sh leaves out what git does not answer; so does the stamp.
		cmd := exec.CommandContext(ctx, git, append([]string{"-C", s.Dir}, args...)...)
		cmd.Env = gitEnviron()
		out, _ := cmd.Output()
		words = append(words, strings.TrimSpace(string(out)))
	}
	return strings.Join(words, " ")
}

var fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// LockName is how a git revision is named in a recipe's lock file.
func LockName(url, revision string) string { return url + "@" + revision }

// ResolveCommit asks a repository which commit a branch or tag is now; a full
// commit stands for itself.
func ResolveCommit(ctx context.Context, url, revision string) (string, error) {
	if fullCommit.MatchString(revision) {
		return revision, nil
	}
	g := plainGit("")
	out, err := g.run(ctx, "ls-remote", "--", url, revision, revision+"^{}")
	if err != nil {
		return "", fmt.Errorf("resolving %q in %q: %w", revision, url, err)
	}
	// An annotated tag's commit is on its "^{}" line, which comes last.
	lines := strings.Split(strings.TrimSpace(out), "\n")
	commit, _, _ := strings.Cut(lines[len(lines)-1], "\t")
	if !fullCommit.MatchString(commit) {
		return "", fmt.Errorf("%q has no branch or tag %q", url, revision)
	}
	return commit, nil
}

func plainGit(dir string) privateGit {
	return privateGit{dir: dir, env: []string{"GIT_TERMINAL_PROMPT=0"}}
}

// Checkout brings a commit of a repository into a folder below cache, once,
// and returns the folder. Nothing is visible there before it is whole.
func Checkout(ctx context.Context, cache, url, commit string, say func(string)) (string, error) {
	if !fullCommit.MatchString(commit) {
		return "", fmt.Errorf("the commit %q of %q is not a full one of 40 digits, so it may mean something else tomorrow; run \"rhizome lock\", or write the full commit", commit, url)
	}
	dir := filepath.Join(cache, commit)
	unlock, err := lock(ctx, dir+".lock", false, nil)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if say != nil {
		say(fmt.Sprintf("fetching commit %s of %s", commit[:12], url))
	}
	return dir, checkoutInto(ctx, dir, url, commit)
}

func checkoutInto(ctx context.Context, dir, url, commit string) error {
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("removing a broken checkout: %w", err)
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return fmt.Errorf("making a folder for the checkout: %w", err)
	}
	g := plainGit(part)
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"fetch", "--quiet", "--depth=1", "--no-tags", "--", url, commit},
		{"-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit},
	} {
		if _, err := g.run(ctx, args...); err != nil {
			return fmt.Errorf("fetching commit %s of %q: %w; is the commit there, and is the repository reachable from here?", commit, url, err)
		}
	}
	return settle(part, dir, syncTree)
}
