// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"openshell.dev/runtime/internal/atomicfile"
	"openshell.dev/runtime/internal/boundedfile"
	"openshell.dev/runtime/internal/secret"
)

// DefaultDir is where root's providers are kept.
const DefaultDir = "/var/lib/openshell/providers"

const (
	suffix     = ".age"
	profileDir = "profiles"
)

// ErrNotFound is wrapped by the errors about a provider or profile that is not
// there.
var ErrNotFound = errors.New("not found")

// Provider is a profile with a person's values.
type Provider struct {
	Name    string `json:"name"`
	Profile string `json:"profile"`
	// Values are the secrets by the credential's name.
	Values map[string]secret.Secret `json:"-"`
	// Expires says when a value ends, for those that do.
	Expires map[string]time.Time `json:"expires,omitempty"`
	// Origins are where values come from that are made anew.
	Origins map[string]*Origin `json:"origins,omitempty"`
	// Revision counts the changes of values.
	Revision int       `json:"revision"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
}

// stored is the file of a provider, before encryption: the only document of the store in
// which the values are text.
type stored struct {
	Provider
	Secrets   map[string]string            `json:"secrets"`
	Materials map[string]map[string]string `json:"materials,omitempty"`
}

// Store keeps providers in a folder, each encrypted to a key beside them.
type Store struct {
	dir string
	// key is the text of an age.X25519Identity.
	key secret.Secret
}

// Open opens the store in dir, which it makes with a key of its own. Nobody but
// the owner may read either.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of providers: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the folder of providers: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is open to others (%s): chmod 700 it", dir, st.Mode().Perm())
	}
	key, err := openKey(dir)
	if err != nil {
		return nil, err
	}
	return &Store{dir, secret.New(key.String())}, nil
}

func (s *Store) file(name string) (string, error) {
	if !idPattern().MatchString(name) {
		return "", fmt.Errorf("provider name %q: want lower-case letters, digits and hyphens", name)
	}
	return filepath.Join(s.dir, name+suffix), nil
}

// Put writes a provider; Revision counts up. Who changes one that is there uses
// Update.
func (s *Store) Put(p *Provider) error {
	p.Revision++
	return s.write(p)
}

// Update changes a provider: nobody else does between reading and writing. With
// changed values the revision counts up.
func (s *Store) Update(name string, edit func(*Provider) (values bool, err error)) (*Provider, error) {
	release, err := s.Lock(name, Exclusive)
	if err != nil {
		return nil, err
	}
	defer release()
	p, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	values, err := edit(p)
	if err != nil {
		return nil, err
	}
	if values {
		p.Revision++
	}
	return p, s.write(p)
}

func (s *Store) write(p *Provider) error {
	file, err := s.file(p.Name)
	if err != nil {
		return err
	}
	for name, v := range p.Values {
		if n := len(v.Reveal()); n == 0 || n > MaxValue {
			return fmt.Errorf("credential %s is empty or larger than %d bytes", name, MaxValue)
		}
	}
	p.Updated = time.Now().UTC()
	if p.Created.IsZero() {
		p.Created = p.Updated
	}
	out := stored{Provider: *p, Secrets: reveal(p.Values), Materials: map[string]map[string]string{}}
	for name, o := range p.Origins {
		out.Materials[name] = reveal(o.Material)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode provider %s: %w", p.Name, err)
	}
	var sealed bytes.Buffer
	key, err := s.identity()
	if err != nil {
		return err
	}
	w, err := age.Encrypt(&sealed, key.Recipient())
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("encrypt provider %s: %w", p.Name, err)
	}
	if err := atomicfile.Write(file, sealed.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write provider %s: %w", p.Name, err)
	}
	return nil
}

// Get reads a provider; the error wraps ErrNotFound if there is none.
func (s *Store) Get(name string) (*Provider, error) {
	file, err := s.file(name)
	if err != nil {
		return nil, err
	}
	sealed, err := boundedfile.Read(file, MaxStored)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("provider %q %w; openshell provider list shows those there are", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read provider %s: %w", name, err)
	}
	key, err := s.identity()
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), key)
	if err != nil {
		return nil, fmt.Errorf("decrypt provider %s: %w", name, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxStored))
	if err != nil {
		return nil, fmt.Errorf("decrypt provider %s: %w", name, err)
	}
	var in stored
	if json.Unmarshal(text, &in) != nil {
		return nil, fmt.Errorf("read provider %s: its file is damaged", name) // the reason might show a value
	}
	if in.Name != name {
		return nil, fmt.Errorf("read provider %s: its file is that of %q", name, in.Name)
	}
	p := in.Provider
	p.Values = conceal(in.Secrets)
	for name, o := range p.Origins {
		o.Material = conceal(in.Materials[name])
	}
	return &p, nil
}

func reveal(all map[string]secret.Secret) map[string]string {
	out := make(map[string]string, len(all))
	for k, v := range all {
		out[k] = v.Reveal()
	}
	return out
}

func conceal(all map[string]string) map[string]secret.Secret {
	out := make(map[string]secret.Secret, len(all))
	for k, v := range all {
		out[k] = secret.New(v)
	}
	return out
}

// List names the providers.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list providers: %w", err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && idPattern().MatchString(name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Delete removes a provider.
func (s *Store) Delete(name string) error {
	file, err := s.file(name)
	if err != nil {
		return err
	}
	release, err := s.Lock(name, Exclusive)
	if err != nil {
		return err
	}
	defer release()
	err = os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("provider %q %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("delete provider %s: %w", name, err)
	}
	return nil
}

// Profiles lists the built-in profiles and those that were imported, by ID; an
// imported one takes the place of a built-in one of its name.
func (s *Store) Profiles() ([]*Profile, error) {
	all, err := Builtin()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, profileDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // what an interrupted write left
		}
		file := filepath.Join(s.dir, profileDir, e.Name())
		text, err := boundedfile.Read(file, MaxProfile+1)
		if err != nil {
			return nil, fmt.Errorf("read profile: %w", err)
		}
		p, err := ParseProfile(file, text)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(o *Profile) bool { return o.ID == p.ID })
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Profile) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Profile finds one; the error wraps ErrNotFound if there is none.
func (s *Store) Profile(id string) (*Profile, error) {
	all, err := s.Profiles()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(p *Profile) bool { return p.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("profile %q %w; openshell provider profile list shows those there are", id, ErrNotFound)
	}
	return all[i], nil
}

// Import keeps a profile.
func (s *Store) Import(file string, text []byte) (*Profile, error) {
	p, err := ParseProfile(file, text)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, profileDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of profiles: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, p.ID+".yaml"), text, 0o600); err != nil {
		return nil, fmt.Errorf("keep profile %s: %w", p.ID, err)
	}
	return p, nil
}
