package tftp

import (
	"errors"
	"fmt"
	"strings"
)

// How a transfer can end early.
var (
	errGone       = errors.New("the client acknowledges no more: it went away, was switched off, or its network is down")
	errClosed     = errors.New("the client closed its port")
	errSuperseded = errors.New("the client asked for another file from the same port")
	errStopping   = errors.New("the server is stopping")
)

// clientError is an ERROR packet of the client.
type clientError struct {
	code    uint16
	message string
}

func (e *clientError) Error() string {
	return fmt.Sprintf("the client ended the transfer with error %d: %q", e.code, e.message)
}

// normal says whether clients end transfers like this in a healthy boot: UEFI
// asks for a file's size and ends with error 8 ("User aborted the transfer"),
// iPXE with error 0 ("TFTP Aborted"); FreeBSD's loader says "No error: read
// aborted" when it goes back in a file.
func (e *clientError) normal(bytes int64) bool {
	probe := bytes == 0 && (e.code == codeOption || e.code == codeUndefined)
	return probe || strings.HasPrefix(e.message, "No error")
}

// fileError is a failure to read the file that is being sent.
type fileError struct{ err error }

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }
