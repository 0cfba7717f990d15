package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/text/width"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// print writes a response: as JSON or YAML with the names of the .proto, or as the table that fill builds.
func (s *session) print(m proto.Message, fill func(*table)) error {
	if s.output == "table" {
		t := &table{}
		fill(t)
		return t.write(s.stdout)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	// protojson varies its spaces on purpose; scripts and people get one form.
	var v any
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if s.output == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
	} else {
		var out strings.Builder
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		b = []byte(out.String())
	}
	_, err = s.stdout.Write(b)
	return err
}

// table prints columns that line up, also with Japanese.
type table struct {
	rows [][]string
	note string // below the table
}

func (t *table) row(cells ...any) {
	r := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case *timestamppb.Timestamp:
			r[i] = when(c)
		case bool:
			r[i] = "no"
			if c {
				r[i] = "yes"
			}
		default:
			r[i] = clean(fmt.Sprint(c))
		}
		if r[i] == "" {
			r[i] = "-"
		}
	}
	t.rows = append(t.rows, r)
}

// gap begins a part with columns of its own.
func (t *table) gap() { t.rows = append(t.rows, nil) }

func (t *table) write(w io.Writer) error {
	var out strings.Builder
	for rest := t.rows; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(r []string) bool { return r == nil })
		if n < 0 {
			n = len(rest)
		}
		writePart(&out, rest[:n])
		rest = rest[min(n+1, len(rest)):]
	}
	if t.note != "" {
		out.WriteString(t.note + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func writePart(out *strings.Builder, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(c))
		}
	}
	for _, r := range rows {
		for i, c := range r {
			out.WriteString(c)
			if i < len(r)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-columns(c)+2))
			}
		}
		out.WriteByte('\n')
	}
}

// columns is how many cells of a terminal a text takes (UAX #11: wide and full-width take two).
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// clean keeps a box's or an operator's words from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format(time.DateTime)
}
