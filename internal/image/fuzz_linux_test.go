// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzOpen checks that an index, a manifest and a configuration of any content give an
// image or an error, in a tar and in a folder.
func FuzzOpen(f *testing.F) {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"`+digest+`","size":2}]}`), []byte(`[{"Config":"config.json","RepoTags":["a:b"],"Layers":["../layer.tar"]}]`), []byte(`{"config":{"User":"root"}}`))
	f.Add([]byte(`{"manifests":[{"digest":"sha256:../../x","platform":{"os":"linux"}},{}]}`), []byte(`[]`), []byte(`null`))
	f.Add([]byte(nil), []byte(`[{"Config":"index.json","Layers":[null,"index.json"]}]`), []byte(nil))
	f.Fuzz(func(t *testing.T, index, saved, config []byte) {
		dir := t.TempDir()
		layout := filepath.Join(dir, "layout")
		if err := os.Mkdir(layout, 0o700); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, text := range map[string][]byte{indexFile: index, savedFile: saved, "config.json": config} {
			if len(text) == 0 {
				continue
			}
			if err := os.WriteFile(filepath.Join(layout, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(text); err != nil {
				t.Fatal(err)
			}
		}
		archive := filepath.Join(dir, "image.tar")
		if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{layout, archive} {
			img, err := Open(path)
			if err != nil {
				continue
			}
			if c, err := img.Config(); err == nil && c == nil {
				t.Errorf("%s has no configuration and no error", path)
			}
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
