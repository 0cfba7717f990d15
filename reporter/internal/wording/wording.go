// Package wording holds what the report says: sentences by key, names of applications, zones and marks, holidays. It is read
// once at start from package data. The trap: a key that isn't there is an error of the whole report, not a blank.
package wording

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Application is an entry of applications.yaml.
type Application struct {
	Name  string `yaml:"name"`
	Group string `yaml:"group"`
	// Use is "remote", "update" or "".
	Use string `yaml:"use"`
}

// Term is an entry of the glossary.
type Term struct {
	Term string `yaml:"term"`
	Text string `yaml:"text"`
}

// Set is all wording of one language.
type Set struct {
	sentences    map[string]string
	groups       map[string]string
	applications map[string]Application
	Holidays     []string // dates as 2026-11-03
	CareWords    []string // lower case
	Glossary     []Term
}

// Load reads the wording folder.
func Load(files fs.FS) (*Set, error) {
	s := &Set{sentences: map[string]string{}}
	var report map[string]any
	if err := read(files, "wording/report.yaml", &report); err != nil {
		return nil, err
	}
	words, ok := report["care_words"].([]any)
	if !ok {
		return nil, fmt.Errorf("read wording/report.yaml: care_words is not a list")
	}
	for _, w := range words {
		s.CareWords = append(s.CareWords, strings.ToLower(fmt.Sprint(w)))
	}
	delete(report, "care_words")
	terms, ok := report["glossary"].([]any)
	if !ok {
		return nil, fmt.Errorf("read wording/report.yaml: glossary is not a list")
	}
	for _, t := range terms {
		m, ok := t.(map[string]any)
		if !ok || len(m) != 2 || m["term"] == nil || m["text"] == nil {
			return nil, fmt.Errorf("read wording/report.yaml: glossary entry %v is not {term, text}", t)
		}
		s.Glossary = append(s.Glossary, Term{fmt.Sprint(m["term"]), fmt.Sprint(m["text"])})
	}
	delete(report, "glossary")
	if err := s.flatten("", report); err != nil {
		return nil, fmt.Errorf("read wording/report.yaml: %w", err)
	}
	var apps struct {
		Groups       map[string]string      `yaml:"groups"`
		Applications map[string]Application `yaml:"applications"`
	}
	if err := read(files, "wording/applications.yaml", &apps); err != nil {
		return nil, err
	}
	for key, a := range apps.Applications {
		if a.Name == "" || apps.Groups[a.Group] == "" || !slices.Contains([]string{"", "remote", "update"}, a.Use) {
			return nil, fmt.Errorf("read wording/applications.yaml: %s: needs a name, a known group and a known use", key)
		}
	}
	s.groups, s.applications = apps.Groups, apps.Applications
	var days struct {
		Holidays []string `yaml:"holidays"`
	}
	if err := read(files, "wording/holidays.yaml", &days); err != nil {
		return nil, err
	}
	s.Holidays = days.Holidays
	return s, nil
}

func read(files fs.FS, name string, into any) error {
	raw, err := fs.ReadFile(files, name)
	if err != nil {
		return fmt.Errorf("read wording: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(raw, into, yaml.Strict()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (s *Set) flatten(prefix string, m map[string]any) error {
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			if err := s.flatten(prefix+k+".", v); err != nil {
				return err
			}
		case string:
			s.sentences[prefix+k] = v
		default:
			return fmt.Errorf("%s%s is a %T, not a sentence", prefix, k, v)
		}
	}
	return nil
}

// Say is the sentence of a key with its {names} filled in from pairs. An unknown key, and a name left unfilled, are errors.
func (s *Set) Say(key string, pairs ...string) (string, error) {
	text, ok := s.sentences[key]
	if !ok {
		return "", fmt.Errorf("say %s: no such sentence", key)
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		i := -1
		for j := 0; j+1 < len(pairs); j += 2 {
			if pairs[j] == name {
				i = j
			}
		}
		if !closed || i < 0 {
			return "", fmt.Errorf("say %s: nothing given for {%s}", key, name)
		}
		b.WriteString(pairs[i+1])
		text = after
	}
}

// Has tells whether there is a sentence of that key.
func (s *Set) Has(key string) bool { _, ok := s.sentences[key]; return ok }

// Keys are all keys, sorted.
func (s *Set) Keys() []string {
	out := make([]string, 0, len(s.sentences))
	for k := range s.sentences {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Application is the display name and the group of an application; one that isn't listed goes by its own name.
func (s *Set) Application(app string) Application {
	if a, ok := s.Listed(app); ok {
		return a
	}
	return Application{Name: app, Group: "work"}
}

// Listed is Application without the stand-in.
func (s *Set) Listed(app string) (Application, bool) {
	a, ok := s.applications[strings.ToLower(app)]
	return a, ok
}

// Using lists the applications of a use, sorted.
func (s *Set) Using(use string) []string {
	var out []string
	for key, a := range s.applications {
		if a.Use == use {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// Group is the name of a group.
func (s *Set) Group(group string) string { return s.groups[group] }
