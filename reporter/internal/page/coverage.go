package page

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Coverage is the page about what could be seen.
type Coverage struct {
	Title, Lead, What, GapsTitle, GlossaryTitle string
	Rows                                        []StateRow
	Gaps                                        []Gap
	Glossary                                    []wording.Term
}

// StateRow is a line about the appliance.
type StateRow struct{ Name, Value, Note, Ev string }

// Gap is an interval without inspection.
type Gap struct{ From, To, Length, Cause string }

// Appendix lists the evidence.
type Appendix struct {
	Title, Lead, Note string
	Rows              []EvidenceRow
}

// EvidenceRow is one number and the records it came from.
type EvidenceRow struct{ ID, What, Value, From string }

// Colophon identifies the document.
type Colophon struct{ Title, Text, Digest string }

func (k *maker) coverage() Coverage {
	c := &k.f.Coverage
	out := Coverage{
		Title: k.say("coverage.title"), What: k.say("coverage.what"), GapsTitle: k.say("coverage.gaps"),
		GlossaryTitle: k.say("coverage.glossary"), Glossary: k.w.Glossary, Lead: k.say("coverage.lead_none"),
	}
	lost := k.say("tiles.unknown")
	if c.LedgerKnown {
		lost = comma(k.lost())
	}
	if c.Known {
		out.Lead = k.say("coverage.lead", "uptime", k.uptime(), "unprotected", duration(c.UnprotectedMS.N), "lost", lost)
		out.Rows = append(out.Rows,
			StateRow{k.say("coverage.uptime"), k.uptime() + "%", k.say("coverage.uptime_note"), c.Uptime.Ev},
			StateRow{k.say("coverage.unprotected"), duration(c.UnprotectedMS.N), k.say("coverage.unprotected_note", "n", strconv.Itoa(c.UnprotectedN)), c.UnprotectedMS.Ev})
		if c.Since != "" {
			out.Rows = append(out.Rows, StateRow{k.say("coverage.since"), k.moment(c.Since), k.say("coverage.since_note"), ""})
		}
	}
	if c.LedgerKnown {
		out.Rows = append(out.Rows, StateRow{k.say("coverage.lost"), lost + "件", k.say("coverage.lost_note",
			"received", comma(c.Received.N), "declared", comma(c.LostDeclared.N), "silent", comma(c.LostSilent.N)), c.LostSilent.Ev})
	}
	out.Rows = append(out.Rows, StateRow{k.say("coverage.zones"), strconv.Itoa(len(c.Zones)) + "区画", k.zoneNames(), ""})
	if c.Known {
		out.Rows = append(out.Rows, StateRow{k.say("coverage.packets"), comma(c.PacketsLost.N) + "個", k.say("coverage.packets_note"), c.PacketsLost.Ev})
		if c.Clear.N+c.Name.N+c.Opaque.N > 0 {
			out.Rows = append(out.Rows, StateRow{
				k.say("coverage.visibility"), k.say("coverage.visibility_value", "clear", tenths(c.Clear.N)),
				k.say("coverage.visibility_note", "name", tenths(c.Name.N), "opaque", tenths(c.Opaque.N)),
				c.Clear.Ev + " " + c.Name.Ev + " " + c.Opaque.Ev,
			})
		}
	}
	for _, a := range c.Appliances {
		text := k.say("coverage.not_installed")
		if a.Installed {
			text = k.say("coverage.version", "version", a.Version, "policy", strconv.FormatInt(a.PolicyVersion, 10), "signature", strconv.FormatInt(a.SignatureVersion, 10))
		}
		out.Rows = append(out.Rows, StateRow{k.say("coverage.appliance"), a.Name, text, ""})
	}
	for _, g := range c.Unprotected {
		from, to := k.when(g.From), k.when(g.To)
		cause := "unknown"
		if k.w.Has("causes." + causeKey(g.Cause)) {
			cause = causeKey(g.Cause)
		}
		out.Gaps = append(out.Gaps, Gap{from.Format("01/02 15:04:05"), to.Format("01/02 15:04:05"), duration(g.MS), k.say("causes." + cause)})
	}
	return out
}

// causeKey takes both forms of a cause: agent_died and CAUSE_AGENT_DIED.
func causeKey(cause string) string {
	return strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(cause), "cause_"), "-", "_")
}

func (k *maker) appendix() Appendix {
	out := Appendix{Title: k.say("appendix.title"), Lead: k.say("appendix.lead"), Note: k.say("appendix.note")}
	for _, e := range k.f.Evidence {
		if e.OnlyFile {
			continue
		}
		out.Rows = append(out.Rows, EvidenceRow{e.ID, k.evidenceName(e.What), k.evidenceValue(e), k.evidenceFrom(e)})
	}
	return out
}

func (k *maker) evidenceValue(e month.Evidence) string {
	switch e.Unit {
	case "bytes":
		return comma(e.Value) + " B"
	case "ms":
		return comma(e.Value) + " ミリ秒"
	case "tenths-of-percent":
		return tenths(e.Value) + "%"
	case "devices":
		return comma(e.Value) + "台"
	}
	return comma(e.Value) + "件"
}

// evidenceFrom prints the records; the first runs of numbers only, the facts hold them all.
func (k *maker) evidenceFrom(e month.Evidence) string {
	if len(e.Of) == 0 {
		if e.From == "" {
			return "－"
		}
		from, to := k.when(e.From), k.when(e.To)
		return fmt.Sprintf("%s〜%s　", from.Format("2006/01/02"), to.AddDate(0, 0, -1).Format("01/02")) + k.say("appendix.rows", "view", e.View, "n", comma(e.Rows))
	}
	const runs = 4
	var parts []string
	shown := 0
	for _, s := range e.Of {
		if shown >= runs {
			break
		}
		list := strings.Split(s.Seqs, ",")
		cut := list[:min(len(list), runs-shown)]
		shown += len(cut)
		text := fmt.Sprintf("装置 %d／%s…：%s", s.Appliance, s.Stream[:8], strings.ReplaceAll(strings.Join(cut, ", "), "-", "–"))
		parts = append(parts, text)
	}
	text := strings.Join(parts, "、")
	var printed int64
	left := runs
	for _, s := range e.Of {
		for i, r := range strings.Split(s.Seqs, ",") {
			if i >= left {
				break
			}
			printed += span(r)
		}
		left -= min(left, strings.Count(s.Seqs, ",")+1)
	}
	if more := e.Rows - printed; more > 0 {
		text += "　" + k.say("appendix.more", "n", comma(more))
	}
	return text
}

func span(run string) int64 {
	from, to, ok := strings.Cut(run, "-")
	if !ok {
		return 1
	}
	a, _ := strconv.ParseInt(from, 10, 64)
	b, _ := strconv.ParseInt(to, 10, 64)
	return b - a + 1
}

// evidenceName puts the path of a number into words.
func (k *maker) evidenceName(what string) string {
	path := strings.Split(what, "/")
	words := make([]string, len(path))
	for i, p := range path {
		switch {
		case i == 2 && path[0] == "traffic" && path[1] == "app" && p == "":
			words[i] = k.say("traffic.rest")
		case i == 2 && path[0] == "traffic" && path[1] == "app":
			words[i] = k.w.Application(p).Name
		case i > 0 && k.names[p] != "" && strings.Contains(p, ":"):
			words[i] = k.names[p]
		case k.w.Has("evidence_names." + p):
			words[i] = k.say("evidence_names." + p)
		case k.w.Has("categories." + p + ".name"):
			words[i] = k.say("categories." + p + ".name")
		default:
			words[i] = p
		}
	}
	return strings.Join(words, "／")
}
