package month

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Num is a number and the id of its evidence in Facts.Evidence.
type Num struct {
	N  int64  `json:"n"`
	Ev string `json:"ev"`
}

// Evidence says which rows a number was made from: events by their names, or rows of a view.
type Evidence struct {
	ID    string     `json:"id"`   // E001
	What  string     `json:"what"` // finding/scan/blocked
	Value int64      `json:"value"`
	Unit  string     `json:"unit"` // count, devices, bytes, ms, tenths-of-percent
	View  string     `json:"view"`
	Rows  int64      `json:"rows"`
	From  string     `json:"from,omitempty"` // RFC 3339
	To    string     `json:"to,omitempty"`
	Of    []EventSet `json:"events,omitempty"`
	// OnlyFile: the number is in the attached file and on no page.
	OnlyFile bool `json:"only_file,omitempty"`
}

// EventSet names events of one stream.
type EventSet struct {
	Appliance int32  `json:"appliance"`
	Stream    string `json:"stream"` // hex
	Seqs      string `json:"seqs"`   // "1-4,9"
	Count     int64  `json:"count"`
}

// set collects event ids. Ids that come in order of stream and number cost 16 bytes a run.
type set struct {
	streams []streamRuns
	rows    int64
}

type streamRuns struct {
	appliance int32
	stream    [16]byte
	runs      [][2]int64
}

func (s *set) add(id EventID) {
	s.rows++
	for i := len(s.streams) - 1; i >= 0; i-- {
		if st := &s.streams[i]; st.appliance == id.Appliance && st.stream == id.Stream {
			if n := len(st.runs); n > 0 && st.runs[n-1][1]+1 == id.Seq {
				st.runs[n-1][1] = id.Seq
			} else {
				st.runs = append(st.runs, [2]int64{id.Seq, id.Seq})
			}
			return
		}
	}
	s.streams = append(s.streams, streamRuns{id.Appliance, id.Stream, [][2]int64{{id.Seq, id.Seq}}})
}

func (s *set) events() []EventSet {
	slices.SortFunc(s.streams, func(a, b streamRuns) int {
		return cmp.Or(cmp.Compare(a.appliance, b.appliance), bytes.Compare(a.stream[:], b.stream[:]))
	})
	out := make([]EventSet, 0, len(s.streams))
	for _, st := range s.streams {
		slices.SortFunc(st.runs, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
		var text strings.Builder
		var count int64
		for i := 0; i < len(st.runs); i++ {
			r := st.runs[i]
			for i+1 < len(st.runs) && st.runs[i+1][0] <= r[1]+1 {
				i++
				r[1] = max(r[1], st.runs[i][1])
			}
			if text.Len() > 0 {
				text.WriteByte(',')
			}
			if r[0] == r[1] {
				fmt.Fprintf(&text, "%d", r[0])
			} else {
				fmt.Fprintf(&text, "%d-%d", r[0], r[1])
			}
			count += r[1] - r[0] + 1
		}
		out = append(out, EventSet{st.appliance, hex.EncodeToString(st.stream[:]), text.String(), count})
	}
	return out
}

// tally is a sum with its ids.
type tally struct {
	n   int64
	ids set
}

func (t *tally) add(id EventID, n int64) {
	t.n += n
	t.ids.add(id)
}

// book gives evidence its ids, in the order in which the facts are written down, so that the same rows give the same ids.
type book struct {
	month   Month
	entries []Evidence
}

func (b *book) put(e Evidence) Num {
	e.ID = fmt.Sprintf("E%03d", len(b.entries)+1)
	b.entries = append(b.entries, e)
	return Num{e.Value, e.ID}
}

// events books a number made from events of the month.
func (b *book) events(what, unit, view string, value int64, ids *set) Num {
	e := Evidence{What: what, Value: value, Unit: unit, View: view}
	if ids != nil {
		e.Rows, e.Of = ids.rows, ids.events()
	}
	if e.Rows == 0 {
		e.From, e.To = stamp(b.month.Start()), stamp(b.month.End())
	}
	return b.put(e)
}

// rows books a number made from rows of a view over [from, to).
func (b *book) rows(what, unit, view string, value, rows int64, m Month) Num {
	return b.put(Evidence{What: what, Value: value, Unit: unit, View: view, Rows: rows, From: stamp(m.Start()), To: stamp(m.End())})
}
