package event

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

func TestDetailIsJSONWhateverTheBoxSays(t *testing.T) {
	for _, name := range []string{`"`, `\`, `\"`, "\x00\x1f\x7f", "\xff\xfe", "\u2028", "日本", strings.Repeat(`"`, 600), "\u202e", "😀"} {
		row, err := New(Source{}, &eventv1.Event{Seq: 1, Time: timestamppb.Now(), Body: &eventv1.Event_Detection{Detection: &eventv1.Detection{
			List: name, Signals: []string{name, name}, Device: &eventv1.Device{Hostname: name},
			Flow: &eventv1.Flow{FlowId: math.MaxUint64, Vlan: []uint32{1, 2, 3, 4, 5, 6}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			List    string   `json:"list"`
			Signals []string `json:"signals"`
			VLAN    []uint32 `json:"vlan"`
			FlowID  uint64   `json:"flow_id"`
		}
		if err := json.Unmarshal(row.Detail, &d); err != nil {
			t.Fatalf("%q: %v in %s", name, err, row.Detail)
		}
		if d.List != Clean(name, maxTitle) || len(d.Signals) != 2 || len(d.VLAN) != 4 || d.FlowID != math.MaxUint64 {
			t.Errorf("%q read back as %+v", name, d)
		}
	}
}

func TestNewKeepsWhatAClockThatWasSetMakesOdd(t *testing.T) {
	now := timestamppb.Now()
	hour := timestamppb.New(now.AsTime().Add(time.Hour))
	year := timestamppb.New(now.AsTime().AddDate(-2, 0, 0))
	for name, e := range map[string]*eventv1.Event{
		"health backwards":       {Body: &eventv1.Event_Health{Health: &eventv1.Health{From: hour, To: now}}},
		"health of two years":    {Body: &eventv1.Event_Health{Health: &eventv1.Health{From: year, To: now}}},
		"health without times":   {Body: &eventv1.Event_Health{Health: &eventv1.Health{}}},
		"unprotected backwards":  {Body: &eventv1.Event_Unprotected{Unprotected: &eventv1.Unprotected{From: hour, To: now}}},
		"unprotected, two years": {Body: &eventv1.Event_Unprotected{Unprotected: &eventv1.Unprotected{From: year, To: now}}},
		"traffic backwards":      {Body: &eventv1.Event_Traffic{Traffic: &eventv1.Traffic{From: hour, To: now}}},
	} {
		e.Seq, e.Time = 1, now
		row, err := New(Source{}, e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var d map[string]any
		if err := json.Unmarshal(row.Detail, &d); err != nil || d["bad_interval"] != true {
			t.Errorf("%s: detail %s, %v", name, row.Detail, err)
		}
	}
}

func TestNewRefusesWhatCannotBeStored(t *testing.T) {
	now := timestamppb.Now()
	hour := timestamppb.New(now.AsTime().Add(time.Hour))
	for name, e := range map[string]*eventv1.Event{
		"no number":        {Time: now, Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{}}},
		"number too large": {Seq: math.MaxInt64, Time: now, Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{}}},
		"no time":          {Seq: 1, Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{}}},
		"no body":          {Seq: 1, Time: now},
		"year 9999":        {Seq: 1, Time: timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{}}},
		"gap turned round": {Seq: 1, Time: now, Body: &eventv1.Event_SpoolGap{SpoolGap: &eventv1.SpoolGap{FromSeq: 5, ToSeq: 4}}},
		"absurd bytes":     {Seq: 1, Time: now, Body: &eventv1.Event_Traffic{Traffic: &eventv1.Traffic{From: now, To: hour, Rows: []*eventv1.Traffic_Row{{BytesIn: math.MaxUint64}}}}},
	} {
		if row, err := New(Source{}, e); err == nil {
			t.Errorf("%s: accepted as %+v", name, row)
		}
	}
}

// FuzzNew: whatever a message says, the row is text PostgreSQL takes, JSON it takes, and numbers in their columns' ranges.
func FuzzNew(f *testing.F) {
	for _, e := range []*eventv1.Event{
		{Seq: 1, Time: timestamppb.Now(), Body: &eventv1.Event_Alert{Alert: &eventv1.Alert{Signature: "x", Flow: &eventv1.Flow{SrcIp: []byte{1, 2, 3, 4}}, Device: &eventv1.Device{Mac: []byte{1, 2, 3, 4, 5, 6}}}}},
		{Seq: 2, Time: timestamppb.Now(), Body: &eventv1.Event_Block{Block: &eventv1.Block{Reason: 99, List: "\x00"}}},
		{Seq: 3, Time: timestamppb.Now(), Body: &eventv1.Event_SpoolGap{SpoolGap: &eventv1.SpoolGap{FromSeq: 1, ToSeq: 2, Kinds: map[string]uint64{"a\x00": 1}}}},
	} {
		b, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &eventv1.Event{}
		if proto.Unmarshal(b, e) != nil {
			return
		}
		row, err := New(Source{Clinic: 1, Appliance: 1}, e)
		if err != nil {
			return
		}
		if row.Detail != nil && !json.Valid(row.Detail) {
			t.Errorf("detail is no JSON: %s", row.Detail)
		}
		for _, s := range []string{row.Kind, row.Category, row.Action, row.Rule, row.Title, row.Indicator, row.App, row.Zone, string(row.Detail)} {
			if strings.ContainsRune(s, 0) || len(s) > 1<<16 {
				t.Errorf("text %q", s)
			}
		}
		if row.Seq == 0 || row.Seq > MaxSeq || row.Count < 1 || row.Severity < 0 || row.Severity > 5 || row.MAC != nil && len(row.MAC) != 6 {
			t.Errorf("row %+v", row)
		}
		if out := appendRow(nil, &row); len(out) < copyColumns*4 {
			t.Errorf("row of %d bytes", len(out))
		}
	})
}
