// SPDX-License-Identifier: Apache-2.0

// Package image reads a container image from a file: an OCI layout in a folder or a tar, or
// the output of `docker save`. It unpacks the image into a folder and writes nothing
// outside that folder, whatever the image contains. It does not download images and does
// not check signatures. It checks digests, so that a damaged image is refused.
package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an open image.
type Image struct {
	image v1.Image
	close func() error
	// The limits of Unpack: bytes of files, and entries.
	maxUnpacked int64
	maxEntries  int
}

// Open opens the image at path. If the file contains images for several platforms, it opens
// the one for linux and this machine's architecture, and fails unless there is exactly one.
func Open(path string) (*Image, error) {
	img, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", path, err)
	}
	return img, nil
}

func open(path string) (*Image, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var b blobs
	if st.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		b = folder{root}
	} else if b, err = indexTar(path); err != nil {
		return nil, err
	}
	out := &Image{close: b.Close, maxUnpacked: MaxUnpacked, maxEntries: MaxEntries}
	out.image, err = find(b)
	if errors.Is(err, fs.ErrNotExist) && !st.IsDir() {
		// Before Docker 25, `docker save` wrote no index.json.
		out.image, err = saved(b)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return out, nil
}

// Close closes the image's file.
func (i *Image) Close() error { return i.close() }

// Config returns the image's configuration for running it: command, environment, user.
func (i *Image) Config() (*v1.Config, error) {
	c, err := i.image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	return &c.Config, nil
}

const (
	indexFile = "index.json"
	savedFile = "manifest.json"
)

func saved(b blobs) (v1.Image, error) {
	t, ok := b.(*tarFile)
	if m, _, err := b.open(savedFile); !ok || err != nil {
		return nil, fmt.Errorf("has neither %s (OCI) nor %s (docker save)", indexFile, savedFile)
	} else if err := m.Close(); err != nil {
		return nil, err
	}
	for name, at := range t.at {
		if path.Ext(name) == ".json" && at.size > MaxDocument {
			return nil, fmt.Errorf("%s is larger than %d bytes", name, MaxDocument)
		}
	}
	return tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(t.file, 0, t.size)), nil }, nil)
}

// find follows the index to the only image for this machine.
func find(b blobs) (v1.Image, error) {
	data, err := document(b, indexFile)
	if err != nil {
		return nil, err
	}
	for range MaxNesting {
		x, err := v1.ParseIndexManifest(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		d, err := choose(x.Manifests)
		if err != nil {
			return nil, err
		}
		if data, err = verified(b, d.Digest); err != nil {
			return nil, err
		}
		if !d.MediaType.IsIndex() {
			return imageOf(b, d.MediaType, data)
		}
	}
	return nil, fmt.Errorf("indexes are nested deeper than %d", MaxNesting)
}

// choose returns the only image, or the only one for this machine.
func choose(all []v1.Descriptor) (v1.Descriptor, error) {
	if len(all) == 1 {
		return all[0], nil
	}
	var fits []v1.Descriptor
	for _, d := range all {
		if p := d.Platform; p != nil && p.OS == "linux" && p.Architecture == runtime.GOARCH {
			fits = append(fits, d)
		}
	}
	if len(fits) != 1 {
		return v1.Descriptor{}, fmt.Errorf("holds %d images for linux/%s, want one", len(fits), runtime.GOARCH)
	}
	return fits[0], nil
}

func imageOf(b blobs, t types.MediaType, manifest []byte) (v1.Image, error) {
	m, err := v1.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	config, err := verified(b, m.Config.Digest)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&stored{b, t, manifest, config, m.Layers})
}

// verified returns the document with the digest h, and fails if its content has another
// one.
func verified(b blobs, h v1.Hash) ([]byte, error) {
	data, err := document(b, blobName(h))
	if err != nil {
		return nil, err
	}
	got, _, err := v1.SHA256(bytes.NewReader(data))
	if err == nil && got != h {
		err = fmt.Errorf("blob %s has the digest %s: the image is damaged", h, got)
	}
	return data, err
}

func blobName(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

func document(b blobs, name string) ([]byte, error) {
	r, _, err := b.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, MaxDocument)
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s is not JSON", name)
	}
	return data, nil
}

// stored is an image whose layers are blobs of a layout.
type stored struct {
	blobs            blobs
	mediaType        types.MediaType
	manifest, config []byte
	layers           []v1.Descriptor
}

func (s *stored) MediaType() (types.MediaType, error) { return s.mediaType, nil }
func (s *stored) RawManifest() ([]byte, error)        { return s.manifest, nil }
func (s *stored) RawConfigFile() ([]byte, error)      { return s.config, nil }
func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range s.layers {
		if d.Digest == h {
			return &layer{s.blobs, d}, nil
		}
	}
	return nil, fmt.Errorf("layer %s is not in the manifest", h)
}

// layer is one layer of a stored image.
type layer struct {
	blobs blobs
	d     v1.Descriptor
}

func (l *layer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l *layer) Size() (int64, error)                { return l.d.Size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l *layer) Compressed() (io.ReadCloser, error) {
	r, _, err := l.blobs.open(blobName(l.d.Digest))
	return r, err
}

// blobs are the files of a layout. open returns fs.ErrNotExist for a missing file.
type blobs interface {
	open(name string) (r io.ReadCloser, size int64, err error)
	io.Closer
}

// folder is a layout in a folder. Links that lead out of the folder are refused.
type folder struct{ *os.Root }

func (f folder) open(name string) (io.ReadCloser, int64, error) {
	r, err := f.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := r.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, r.Close())
	}
	return r, st.Size(), nil
}

// tarFile is a layout in a tar. It holds the offset and size of each file.
type tarFile struct {
	file *os.File
	size int64
	at   map[string]extent
}

type extent struct{ offset, size int64 }

func indexTar(name string) (*tarFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := &tarFile{file: f, at: map[string]extent{}}
	if err := t.scan(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

func (t *tarFile) scan() error {
	st, err := t.file.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("is neither a folder nor a regular file")
	}
	t.size = st.Size()
	for r := tar.NewReader(t.file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar (compressed tars are not supported): %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if len(t.at) == MaxBlobs {
			return fmt.Errorf("has more than %d files", MaxBlobs)
		}
		offset, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		t.at[path.Clean(h.Name)] = extent{offset, h.Size}
	}
}

func (t *tarFile) open(name string) (io.ReadCloser, int64, error) {
	e, ok := t.at[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(t.file, e.offset, e.size)), e.size, nil
}

func (t *tarFile) Close() error { return t.file.Close() }
