package debiankernel

// Version is raised whenever this package makes other bytes of the same
// inputs.
const Version = 3
