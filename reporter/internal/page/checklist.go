package page

import (
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/reporter/internal/checklist"
)

// Checklist is the page about the Ministry's checklist.
type Checklist struct {
	Title, Lead, Edition, Draft, Note, Password, Date string
	Legend                                            []LegendEntry
	Groups                                            []CheckGroup
}

// LegendEntry is a state with how many items have it.
type LegendEntry struct {
	Mark  Mark
	Count string
	Note  string
}

// CheckGroup is a heading and its items.
type CheckGroup struct {
	Name string
	Rows []CheckRow
}

// CheckRow is an item.
type CheckRow struct {
	No, Title, Seen, Ev string
	Mark                Mark
}

var checkSymbols = map[string]string{checklist.Supported: "●", checklist.Contradicted: "■", checklist.Unseen: "○", checklist.Outside: "－"}

func (k *maker) checkMark(state string) Mark {
	return Mark{state, checkSymbols[state], k.say("checklist.states." + state + ".word")}
}

func (k *maker) checklist(packs []checklist.Pack) Checklist {
	pack, exact, err := checklist.For(packs, k.m)
	if err != nil {
		if k.err == nil {
			k.err = err
		}
		return Checklist{}
	}
	out := Checklist{
		Title: k.say("checklist.title"), Note: k.say("checklist.note"), Date: k.say("checklist.date"),
		Edition: k.say("checklist.edition", "name", pack.Name, "era", era(k.m)),
	}
	if !exact {
		year := k.m.Year()
		if k.m.Number() < 4 {
			year--
		}
		want := "令和" + strconv.Itoa(year-2018) + "年度版"
		out.Edition = k.say("checklist.edition_old", "want", want, "name", pack.Name, "era", era(k.m))
	}
	if pack.Text != "official" {
		out.Draft = k.say("checklist.draft", "name", pack.Name)
	}
	counts := map[string]int{}
	n := 0
	for _, g := range pack.Groups {
		group := CheckGroup{Name: g.Number + "　" + g.Title}
		for _, i := range g.Items {
			f := checklist.Look(i.Key, k.f)
			counts[f.State]++
			n++
			group.Rows = append(group.Rows, CheckRow{i.No, i.Title, k.say("checklist.obs."+f.Sentence, f.Pairs...), f.Ev, k.checkMark(f.State)})
			if strings.Contains(i.Title, "定期的に変更") {
				out.Password = i.No + "　" + k.say("checklist.password")
			}
		}
		out.Groups = append(out.Groups, group)
	}
	for _, state := range []string{checklist.Supported, checklist.Contradicted, checklist.Unseen, checklist.Outside} {
		out.Legend = append(out.Legend, LegendEntry{k.checkMark(state), strconv.Itoa(counts[state]) + "項目", k.say("checklist.states." + state + ".note")})
	}
	out.Lead = k.say("checklist.lead_ok", "name", pack.Name, "n", strconv.Itoa(n))
	if c := counts[checklist.Contradicted]; c > 0 {
		out.Lead = k.say("checklist.lead", "name", pack.Name, "n", strconv.Itoa(n), "act", strconv.Itoa(c))
	}
	return out
}
