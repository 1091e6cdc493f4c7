package early

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// httpTries is how often in a row HTTP may fail to give a byte before NFS is
// tried beside it, and how often again if that failed too: a mount from a server
// that is away takes its time.
const httpTries = 3

// nfsRead is how much is read of a file at once: Linux asks the server for no
// more than that.
const nfsRead = 1 << 20

// overNFS is the other way to a node's blobs: the export that has them as files,
// mounted from the first that HTTP does not give until all are read. A nil one,
// or one without an export, leads nowhere.
type overNFS struct {
	system system
	// export is SERVER:PATH, and dir where it is mounted.
	export, dir string
	mounted     bool
	// note says of the first blob that came this way why it did.
	note string
}

// due says whether NFS is to be tried after so many tries of HTTP. Where HTTP
// answers with a refusal, NFS has nothing else to say. Once a blob came this way
// the next ones need not wait.
func (o *overNFS) due(tries int, err error) bool {
	return o != nil && o.export != "" && agent.IsNetwork(err) && (o.mounted || tries%httpTries == 0)
}

// open gives a blob from a byte on, after HTTP failed with cause. An error holds
// both.
func (o *overNFS) open(digest string, from int64, cause error) (io.ReadCloser, error) {
	f, err := o.file(nodeapi.BlobFile(digest))
	if err == nil {
		if _, err = f.Seek(from, io.SeekStart); err == nil {
			o.say(fmt.Sprintf("read over NFS where HTTP failed, at byte %d: %v", from, cause))
			return struct {
				io.Reader
				io.Closer
			}{bufio.NewReaderSize(f, nfsRead), f}, nil
		}
		f.Close()
	}
	o.close()
	return nil, fmt.Errorf("%w; over NFS: %w", cause, err)
}

func (o *overNFS) file(name string) (*os.File, error) {
	if !o.mounted {
		if err := o.system.NFS(o.export, o.dir); err != nil {
			return nil, fmt.Errorf("mounting %q: %w", o.export, err)
		}
		o.mounted = true
	}
	return os.Open(filepath.Join(o.dir, name))
}

func (o *overNFS) say(note string) {
	if o.note == "" {
		o.note = note
	}
}

// noted adds the note to what is said of a step.
func (o *overNFS) noted(message string) string {
	if o == nil || o.note == "" {
		return message
	}
	return message + "; " + o.note
}

// close unmounts: when all is read, and when reading failed, so that the next
// try begins anew.
func (o *overNFS) close() {
	if o == nil || !o.mounted {
		return
	}
	o.mounted = false
	_ = o.system.Unmount(o.dir)
	_ = os.Remove(o.dir)
}

// pause is the wait after so many tries: short at first, so that a server whose
// HTTP alone is broken costs a boot less than a second, and half a minute in the
// end, for one that is being started anew.
func pause(tries int) time.Duration {
	return min(200*time.Millisecond<<(max(tries, 1)-1), 30*time.Second)
}
