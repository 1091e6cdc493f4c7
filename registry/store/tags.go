package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TagChange is one line of the log of tags: NAME:TAG came to mean another
// image. From is empty for a new tag, To for one that was dropped.
type TagChange struct {
	Time time.Time     `json:"time"`
	Who  string        `json:"who,omitempty"`
	Ref  string        `json:"ref"`
	From digest.Digest `json:"from,omitempty"`
	To   digest.Digest `json:"to,omitempty"`
	Why  string        `json:"why,omitempty"`
}

// Tag makes NAME[:TAG] mean an image, in one atomic switch, and logs it. An
// image of which a part is missing is refused.
func (s *Store) Tag(ctx context.Context, d ocispec.Descriptor, name string) error {
	tagged, err := storeTag(name)
	if err != nil {
		return err
	}
	if err := s.images.Complete(ctx, d); err != nil {
		return fmt.Errorf("tagging %q: %w", tagged, err)
	}
	return s.changeTags(ctx, "", func(idx *ocispec.Index) ([]TagChange, error) {
		was, _ := layout.FindTag(*idx, tagged)
		layout.SetTag(idx, d, tagged)
		return []TagChange{{Ref: tagged, From: was.Digest, To: d.Digest}}, nil
	})
}

// CheckTag says what is wrong with a name for an image of the store.
func CheckTag(name string) error {
	_, err := storeTag(name)
	return err
}

// Untag drops a name. The image stays until it is collected.
func (s *Store) Untag(ctx context.Context, name string) error {
	tagged, err := storeTag(name)
	if err != nil {
		return err
	}
	return s.changeTags(ctx, "", func(idx *ocispec.Index) ([]TagChange, error) {
		was, ok := layout.FindTag(*idx, tagged)
		if !ok {
			return nil, &layout.NotFoundError{What: fmt.Sprintf("the tag %q", tagged), Root: s.dir}
		}
		layout.DropTag(idx, tagged)
		return []TagChange{{Ref: tagged, From: was.Digest}}, nil
	})
}

// storeTag reads a name that may stand in the store's index.
func storeTag(name string) (string, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return "", err
	}
	if r.Remote() || r.Name == "" || r.Digest != "" {
		return "", &ref.SyntaxError{Text: name, Cause: errors.New("it cannot be a tag in the store: write NAME or NAME:TAG")}
	}
	return r.Tagged(), nil
}

// changeTags changes the index under the lock and logs what was changed. The
// index is the truth: a log that a crash kept behind it is brought up to it by
// the next change of the same name.
func (s *Store) changeTags(ctx context.Context, why string, change func(*ocispec.Index) ([]TagChange, error)) error {
	release, err := s.images.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.changeTagsLocked(why, change)
}

func (s *Store) changeTagsLocked(why string, change func(*ocispec.Index) ([]TagChange, error)) error {
	idx, err := s.images.ReadIndex()
	if err != nil {
		return err
	}
	changes, err := change(&idx)
	if err != nil || len(changes) == 0 {
		return err
	}
	if err := s.images.WriteIndex(idx); err != nil {
		return err
	}
	for _, c := range changes {
		c.Time, c.Who, c.Why = s.now().UTC(), s.who, why
		if err := s.logTag(c); err != nil {
			return err
		}
	}
	return nil
}

// logTag appends to the log, first what an earlier crash kept out of it.
func (s *Store) logTag(c TagChange) error {
	file := s.historyFile(repository(c.Ref))
	old, err := readLog(file)
	if err != nil {
		return err
	}
	if c.From == c.To {
		return nil
	}
	lines := []TagChange{c}
	if last := lastOf(old, c.Ref); last != c.From {
		lines = []TagChange{{Time: c.Time, Ref: c.Ref, From: last, To: c.From, Why: "found so in the index"}, c}
	}
	return s.appendLog(file, lines)
}

func lastOf(log []TagChange, tagged string) digest.Digest {
	for _, c := range slices.Backward(log) {
		if c.Ref == tagged {
			return c.To
		}
	}
	return ""
}

// repository is NAME of NAME:TAG.
func repository(tagged string) string {
	if i := strings.LastIndexByte(tagged, ':'); i >= 0 {
		return tagged[:i]
	}
	return tagged
}

// longName is how long a name of a log may be, in bytes: a file's is 255 at most
// (NAME_MAX), and each slash of the name takes three of them.
const longName = 200

func (s *Store) historyFile(name string) string {
	file := url.PathEscape(name)
	if len(file) > longName {
		file = fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	}
	return s.path(dirHistory, file+".jsonl")
}

// appendLog writes lines at the end, after a newline where a crash tore the
// last line.
func (s *Store) appendLog(file string, lines []TagChange) error {
	f, err := s.fs.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of tags %q: %w", file, durable.Hint(err))
	}
	defer f.Close()
	text, err := logLines(lines)
	if err != nil {
		return err
	}
	if torn(f) {
		text = append([]byte("\n"), text...)
	}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("writing the log of tags %q: %w", file, durable.Hint(err))
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing the log of tags %q: %w", file, durable.Hint(err))
	}
	return s.fs.SyncDir(s.path(dirHistory))
}

func logLines(lines []TagChange) ([]byte, error) {
	var text []byte
	for _, l := range lines {
		line, err := json.Marshal(l)
		if err != nil {
			return nil, fmt.Errorf("writing the log of tags: %w", err)
		}
		text = append(append(text, line...), '\n')
	}
	return text, nil
}

func torn(f durable.File) bool {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, end-1)
	return err == nil && last[0] != '\n'
}

// readLog reads a log, passing over lines that a crash tore.
func readLog(file string) ([]TagChange, error) {
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log of tags: %w", err)
	}
	var log []TagChange
	for line := range strings.Lines(string(data)) {
		var c TagChange
		if json.Unmarshal([]byte(line), &c) == nil {
			log = append(log, c)
		}
	}
	return log, nil
}

// Version is one entry of a history.
type Version struct {
	TagChange
	// Present says whether the image To is still in the store.
	Present bool `json:"present"`
}

// History lists what NAME:TAG, or every tag of NAME, meant: the newest first.
func (s *Store) History(ctx context.Context, name string) ([]Version, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	log, err := readLog(s.historyFile(r.Name))
	if err != nil {
		return nil, err
	}
	var versions []Version
	for _, c := range slices.Backward(log) {
		if r.Tag == "" || c.Ref == r.Tagged() {
			versions = append(versions, Version{c, s.present(ctx, c.To)})
		}
	}
	if len(versions) == 0 {
		return nil, &layout.NotFoundError{What: fmt.Sprintf("a history of %q", name), Root: s.dir}
	}
	return versions, nil
}

func (s *Store) present(ctx context.Context, d digest.Digest) bool {
	if d == "" {
		return false
	}
	b, err := s.images.Open(ctx, ocispec.Descriptor{Digest: d})
	if err != nil {
		return false
	}
	b.Close()
	return true
}

// Resolve finds an image of the store by NAME[:TAG], by NAME@DIGEST or by
// DIGEST alone.
func (s *Store) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if r.Remote() {
		return ocispec.Descriptor{}, fmt.Errorf("%q is in a registry: pull it first", name)
	}
	if r.Digest != "" {
		return s.images.Describe(ctx, r.Digest)
	}
	return s.images.Resolve(ctx, r.Tagged())
}

// Image is a name and what it means.
type Image struct {
	Name       string
	Descriptor ocispec.Descriptor
	// Tagged is when the name came to mean this image; zero when another
	// program tagged it.
	Tagged time.Time
	// Nodes are the nodes of a cluster image, in its order.
	Nodes []string
}

// List lists the store's images, sorted by name.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	tags, err := s.images.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, t := range tags {
		img := Image{Name: t.Name, Descriptor: t.Descriptor, Tagged: s.taggedAt(t)}
		if nodes, err := s.Nodes(ctx, t.Descriptor); err == nil {
			img.Nodes = nodeNames(nodes)
		}
		images = append(images, img)
	}
	return images, nil
}

func (s *Store) taggedAt(t layout.Tagged) time.Time {
	log, _ := readLog(s.historyFile(repository(t.Name)))
	for _, c := range slices.Backward(log) {
		if c.Ref == t.Name && c.To == t.Descriptor.Digest {
			return c.Time
		}
	}
	return time.Time{}
}

// NodeManifest is one node of a cluster image.
type NodeManifest struct {
	Node       string
	Descriptor ocispec.Descriptor
}

// Nodes lists the nodes of a cluster image in its order. A descriptor without
// a node's name is passed over: an image that others made has none.
func (s *Store) Nodes(ctx context.Context, index ocispec.Descriptor) ([]NodeManifest, error) {
	if !layout.IsIndex(index.MediaType) {
		return nil, nil
	}
	next, err := s.images.Successors(ctx, index)
	if err != nil {
		return nil, err
	}
	var nodes []NodeManifest
	for _, d := range next {
		if name := d.Annotations[imagefmt.AnnotationNode]; name != "" {
			nodes = append(nodes, NodeManifest{name, d})
		}
	}
	return nodes, nil
}

func nodeNames(nodes []NodeManifest) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Node)
	}
	return names
}
