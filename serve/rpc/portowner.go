package rpc

// Owner is the process that holds a port.
type Owner struct {
	PID int
	// Command is the process's name, such as "rpcbind".
	Command string
}
