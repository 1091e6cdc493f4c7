package prefetch

// Bound is a command that is to see a region in memory.
type Bound struct {
	// Base is the folder in memory that holds the region under the paths that
	// it has on the node; Paths are those paths.
	Base  string
	Paths []string
	// Dir is the folder that the command begins in, Path its file and Args its
	// arguments with its name first.
	Dir      string
	Path     string
	Args     []string
	ReadOnly bool
}
