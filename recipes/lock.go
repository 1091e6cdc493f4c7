package recipes

// Lock pins what a recipe names loosely: package versions and sums, git
// commits, image digests. It lies beside the recipe as NAME.lock.yaml, and
// build obeys it.
type Lock struct {
	Version int `yaml:"version"`
	// Sets are resolved package sets by the step's name ("debian",
	// "kernel:default").
	Sets map[string]PackageSet `yaml:"sets,omitempty"`
	// Images maps a reference as written to its digest.
	Images map[string]string `yaml:"images,omitempty"`
	// Commits maps a git URL and revision as written to a commit.
	Commits map[string]string `yaml:"commits,omitempty"`
}

// PackageSet is a resolved set of packages of one step.
type PackageSet struct {
	// Request is the digest of what was asked for; a recipe that asks for
	// something else makes the lock stale.
	Request  string          `yaml:"request"`
	Suite    string          `yaml:"suite,omitempty"`
	Packages []LockedPackage `yaml:"packages"`
}

// LockedPackage is one package to the byte.
type LockedPackage struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	Arch    string `yaml:"arch"`
	// File is the path below the mirror, Size in bytes, SHA256 in hex.
	File   string `yaml:"file"`
	Size   int64  `yaml:"size"`
	SHA256 string `yaml:"sha256"`
}
