package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layout"
	"rhizome/registry/ref"
	"rhizome/registry/remote"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Types of a build step's result as an artifact (image-spec, manifest.md,
// "Guidelines for Artifact Usage"): the config is the result, the layers are
// the step's.
const (
	MediaTypeStage       = "application/vnd.rhizome.stage.v1"
	MediaTypeStageResult = "application/vnd.rhizome.stage.result.v1+json"
)

// annotationKey names the key that a result belongs to.
const annotationKey = imagefmt.Prefix + "stage.key"

// maxResult bounds the result of one step, in bytes.
const maxResult = 4 << 20

// StageTag is the tag of a key's result.
func StageTag(key digest.Digest) string { return "rz-" + key.Encoded() }

// stageRef names a key's result in a repository.
func stageRef(repo ref.Reference, key digest.Digest) ref.Reference {
	return ref.Reference{Host: repo.Host, Name: repo.Name, Tag: StageTag(key)}
}

// FindStage asks a repository for the result of a key. ok is false where it
// has none. No layer is fetched.
func (l Link) FindStage(ctx context.Context, repo ref.Reference, key digest.Digest) (result []byte, ok bool, err error) {
	r := stageRef(repo, key)
	data, err := l.Client.Manifest(ctx, r)
	var far *remote.Error
	if errors.As(err, &far) && far.Kind == remote.NotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	m, err := parseStage(data, key)
	if err != nil {
		return nil, false, fmt.Errorf("reading %q: %w", r, err)
	}
	result, err = l.fetchSmall(ctx, r, m.Config)
	return result, err == nil, err
}

func parseStage(data []byte, key digest.Digest) (m ocispec.Manifest, err error) {
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("it is no manifest: %w", err)
	}
	if m.Config.MediaType != MediaTypeStageResult || m.Annotations[annotationKey] != key.String() {
		return m, fmt.Errorf("it is not the result of the build step %s, but a %q of %q: is the repository used for something else?", key, m.Config.MediaType, m.Annotations[annotationKey])
	}
	if m.Config.Size < 0 || m.Config.Size > maxResult {
		return m, fmt.Errorf("its result has %d bytes; %d is the most that is read", m.Config.Size, maxResult)
	}
	return m, m.Config.Digest.Validate()
}

func (l Link) fetchSmall(ctx context.Context, r ref.Reference, d ocispec.Descriptor) ([]byte, error) {
	rc, err := l.Client.Fetch(ctx, r, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, d.Size+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", r, err)
	}
	if int64(len(data)) != d.Size || digest.FromBytes(data) != d.Digest {
		return nil, &layout.CorruptError{Descriptor: d, Problem: "the registry sent other bytes"}
	}
	return data, nil
}

// PullStage brings the layers of a key's result into the store, verified.
func (l Link) PullStage(ctx context.Context, repo ref.Reference, key digest.Digest) error {
	_, err := l.Pull(ctx, stageRef(repo, key), PullOptions{})
	return err
}

// PushStage gives a repository the result of a key, unless it has one that is
// as good.
func (l Link) PushStage(ctx context.Context, repo ref.Reference, key digest.Digest, result []byte, layers []ocispec.Descriptor, asGood func(has []byte) bool) (pushed bool, err error) {
	if has, ok, err := l.FindStage(ctx, repo, key); err != nil || ok && asGood(has) {
		return false, err
	}
	d, err := l.stageManifest(ctx, key, result, layers)
	if err != nil {
		return false, err
	}
	return true, l.Push(ctx, d, stageRef(repo, key))
}

// stageManifest stores the artifact's two documents. Nothing names them, so
// they go at the next collection.
func (l Link) stageManifest(ctx context.Context, key digest.Digest, result []byte, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	config, err := l.ingest(ctx, MediaTypeStageResult, result)
	if err != nil {
		return config, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: MediaTypeStage,
		Config: config, Layers: append([]ocispec.Descriptor{}, layers...), Annotations: map[string]string{annotationKey: key.String()},
	}
	data, err := json.Marshal(m)
	if err != nil {
		return config, fmt.Errorf("writing the result of the build step %s: %w", key, err)
	}
	return l.ingest(ctx, ocispec.MediaTypeImageManifest, data)
}

func (l Link) ingest(ctx context.Context, mediaType string, data []byte) (ocispec.Descriptor, error) {
	return l.Store.Ingest(ctx, mediaType, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
