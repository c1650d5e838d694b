// SPDX-License-Identifier: Apache-2.0

// Package secrettest tests that nothing prints the secrets that a value holds.
package secrettest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"openshell.dev/runtime/internal/secret"
)

// module is the path that the packages of this module begin with.
const module = "openshell.dev/runtime/"

// Check fails t if printing root, or anything that it holds, shows one of secrets. It walks
// exported and unexported fields, pointers, maps, slices and interfaces, and prints what it
// meets with fmt's verbs, slog's handlers and encoding/json. It does not enter structs of
// other modules, functions and channels, and prints nothing below a value of one of the
// types of text. Those keep secrets as text behind a pointer.
//
// Check also fails if the walk does not meet each of secrets: a test that forgets to set a
// field shows nothing.
func Check(t testing.TB, root any, secrets []string, text ...any) {
	t.Helper()
	w := &walker{t: t, secrets: secrets, met: map[string]bool{}, seen: map[visit]bool{}, shown: map[string]bool{}}
	for _, x := range text {
		w.text = append(w.text, reflect.TypeOf(x))
	}
	// fmt calls no methods on what an unexported field has.
	w.print("a field of root", reflect.ValueOf(struct{ hidden any }{root}))
	w.walk(fmt.Sprintf("(%T)", root), reflect.ValueOf(root), true)
	for _, s := range secrets {
		if !w.met[s] {
			t.Errorf("%T does not hold the secret %q: the test shows nothing about it", root, s)
		}
	}
}

type visit struct {
	at uintptr
	of reflect.Type
}

type walker struct {
	t       testing.TB
	secrets []string
	text    []reflect.Type
	met     map[string]bool
	seen    map[visit]bool
	shown   map[string]bool
}

// walk visits v, which path leads to, and what it holds. Without printed it only notes the
// secrets that it meets.
func (w *walker) walk(path string, v reflect.Value, printed bool) {
	if !v.IsValid() {
		return
	}
	v = open(v)
	if s, ok := v.Interface().(secret.Secret); ok {
		w.meet(s.Reveal())
		return
	}
	if printed {
		w.print(path, v)
	}
	for _, t := range w.text {
		if v.Type() == t || v.Type() == reflect.PointerTo(t) {
			printed = false
		}
	}
	switch v.Kind() {
	case reflect.String:
		w.meet(v.String())
	case reflect.Pointer:
		at := visit{v.Pointer(), v.Type()}
		if v.IsNil() || w.seen[at] {
			return
		}
		w.seen[at] = true
		w.walk("(*"+path+")", v.Elem(), printed)
	case reflect.Interface:
		w.walk(path, v.Elem(), printed)
	case reflect.Struct:
		pkg := v.Type().PkgPath()
		if pkg == "sync/atomic" {
			if load := v.Addr().MethodByName("Load"); load.IsValid() { // an atomic.Pointer, or Value
				w.walk(path+".Load()", load.Call(nil)[0], printed)
			}
			return
		}
		if pkg != "" && !strings.HasPrefix(pkg, module) {
			return
		}
		for i := range v.NumField() {
			w.walk(path+"."+v.Type().Field(i).Name, v.Field(i), printed)
		}
	case reflect.Map:
		for k, x := range v.Seq2() {
			w.walk(path+"[key]", k, printed)
			w.walk(fmt.Sprintf("%s[%v]", path, k), x, printed)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.CanAddr() || v.Kind() == reflect.Slice {
				w.meet(string(v.Bytes()))
			}
			return
		}
		if !holds(v.Type().Elem()) {
			return
		}
		for i := range v.Len() {
			w.walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), printed)
		}
	}
}

// holds reports whether values of a type can hold others.
func holds(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Pointer, reflect.Interface, reflect.Struct, reflect.Map, reflect.Slice, reflect.Array:
		return true
	default:
		return false
	}
}

// open returns v as if every field on the way to it was exported, and addressable.
func open(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	return out
}

func (w *walker) meet(text string) {
	for _, s := range w.secrets {
		if strings.Contains(text, s) {
			w.met[s] = true
		}
	}
}

// print prints v in every way and looks for the secrets. The verbs that do not fit matter:
// %s of a pointer to a struct in an unexported field shows the struct, where %v shows an
// address.
func (w *walker) print(path string, v reflect.Value) {
	printed := Outputs(v.Interface())
	if v.CanAddr() {
		for how, out := range Outputs(v.Addr().Interface()) {
			printed[how+" of the address"] = out
		}
	}
	for how, out := range printed {
		for _, s := range w.secrets {
			if w.shown[s] || !slices.ContainsFunc(forms(s), func(form string) bool { return strings.Contains(out, form) }) {
				continue
			}
			w.shown[s] = true // what holds it shows it as well
			w.t.Errorf("%s of %s (%s) shows the secret %q: %.300s", how, path, v.Type(), s, out)
		}
	}
}

// forms returns the texts in which a secret is printed: fmt writes the bytes of a []byte as
// decimal numbers, encoding/json as base64.
func forms(s string) []string {
	b := []byte(s)
	return []string{
		s, fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), strings.Trim(fmt.Sprint(b), "[]"),
		strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}"), base64.StdEncoding.EncodeToString(b),
	}
}

// Outputs returns the printed forms of x by the name of the printer.
func Outputs(x any) map[string]string {
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "x", x)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "x", x)
	marshalled, _ := json.Marshal(x) // what it cannot encode, it does not show
	out := map[string]string{"slog": log.String(), "encoding/json": string(marshalled)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		out[verb] = fmt.Sprintf(verb, x)
	}
	if err, ok := x.(error); ok && (reflect.TypeOf(x).Kind() != reflect.Pointer || !reflect.ValueOf(x).IsNil()) {
		out["Error"] = err.Error()
	}
	return out
}
