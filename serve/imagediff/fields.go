package imagediff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	"rhizome/serve/rootfs"
)

// compareFields compares two values by their JSON, field by field.
func compareFields(old, new any) []value {
	return compareMaps(flat(old), flat(new))
}

func compareMaps(a, b map[string]string) []value {
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []value
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if a[name] != b[name] {
			out = append(out, value{name, a[name], b[name]})
		}
	}
	return out
}

// flat turns a value into paths of JSON names and texts.
func flat(v any) map[string]string {
	out := map[string]string{}
	encoded, err := json.Marshal(v)
	var tree any
	if err == nil {
		err = json.Unmarshal(encoded, &tree)
	}
	if err != nil {
		panic("imagediff: " + err.Error()) // imagefmt's types always encode
	}
	flatten("", tree, out)
	return out
}

func flatten(path string, v any, out map[string]string) {
	under := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	switch v := v.(type) {
	case map[string]any:
		for name, below := range v {
			flatten(under(name), below, out)
		}
	case []any:
		for i, below := range v {
			flatten(under(strconv.Itoa(i)), below, out)
		}
	case nil:
	case float64:
		out[path] = strconv.FormatFloat(v, 'f', -1, 64)
	default:
		out[path] = fmt.Sprint(v)
	}
}

// freebsdKernel is where FreeBSD's loader looks for the kernel unless it is
// told otherwise (loader.conf(5), "kernel").
const freebsdKernel = "/boot/kernel/kernel"

// compareKernels compares what boots two nodes, by path and digest.
func compareKernels(old, new Node) ([]value, error) {
	a, err := kernelsOf(old)
	if err != nil {
		return nil, err
	}
	b, err := kernelsOf(new)
	return compareMaps(a, b), err
}

func kernelsOf(n Node) (map[string]string, error) {
	paths := map[string]string{"kernel": n.Node.Boot.Kernel, "initrd": n.Node.Boot.Initrd}
	if paths["kernel"] == "" && n.Node.Boot.OS == "freebsd" {
		paths["kernel"] = freebsdKernel
	}
	out := map[string]string{}
	for what, path := range paths {
		if path == "" {
			continue
		}
		sum, err := bodyDigest(n.View, path)
		if err != nil {
			return nil, err
		}
		if sum != "" {
			out[what] = path + " " + sum
		}
	}
	return out, nil
}

// bodyDigest is the digest of a path's file, or "" where there is none.
func bodyDigest(v *rootfs.View, path string) (string, error) {
	f, err := v.Resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum, err := v.BodyDigest(f)
	if errors.Is(err, fs.ErrInvalid) || errors.Is(err, rootfs.ErrIsDir) {
		return "", nil
	}
	return fmt.Sprintf("sha256:%x", sum), err
}
