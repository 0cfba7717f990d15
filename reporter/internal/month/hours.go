package month

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// openHours tells for each weekday (0 Sunday; 7 public holiday) in which hours the clinic is open; an hour counts when the
// clinic is open for at least half of it.
type openHours [8][24]bool

var (
	dayNames  = map[string]int{"日": 0, "月": 1, "火": 2, "水": 3, "木": 4, "金": 5, "土": 6, "祝": 7, "sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6, "hol": 7}
	hourToken = regexp.MustCompile(`(?i)(日|月|火|水|木|金|土|祝|sun|mon|tue|wed|thu|fri|sat|hol)(?:曜日?|日)?|([0-9]{1,2})[:：]([0-9]{2})|[〜～~–\-－ー]|休診?|closed|午前|午後|am|pm|[;；/／、，,・()（）\s]+|と`)
)

// parseHours reads a clinic's hours as people write them: "月火水金 9:00-12:30 15:00-18:30; 土 9:00-12:30",
// "月〜金 9:00〜18:00、木 休診", "mon-fri 09:00-17:00". ok is false when anything in the text is not understood: then nothing is
// shaded, because a wrong guess would be worse.
func parseHours(text string) (open openHours, ok bool) {
	type at struct{ minute int }
	var (
		days      []int
		lastDay   = -1
		dayRange  bool
		from      *at
		afternoon bool
		timesSeen bool
		any       bool
	)
	for rest := text; rest != ""; {
		m := hourToken.FindStringSubmatchIndex(rest)
		if m == nil || m[0] != 0 || m[1] == 0 {
			return open, false
		}
		token := strings.ToLower(rest[:m[1]])
		group := func(i int) string {
			if m[2*i] < 0 {
				return ""
			}
			return strings.ToLower(rest[m[2*i]:m[2*i+1]])
		}
		switch {
		case group(1) != "":
			d := dayNames[group(1)]
			if timesSeen {
				days, lastDay, timesSeen, dayRange = nil, -1, false, false
			}
			if dayRange && lastDay >= 0 && lastDay < 7 && d < 7 {
				for x := lastDay; x != d; {
					x = (x + 1) % 7
					days = append(days, x)
				}
			} else {
				days = append(days, d)
			}
			lastDay, dayRange, afternoon = d, false, false
		case group(2) != "":
			h, _ := strconv.Atoi(group(2))
			minute, _ := strconv.Atoi(group(3))
			if afternoon && h < 12 {
				h += 12
			}
			if h > 24 || minute > 59 || h*60+minute > 24*60 {
				return open, false
			}
			t := at{h*60 + minute}
			if from == nil {
				from = &t
				break
			}
			if t.minute <= from.minute {
				return open, false
			}
			if len(days) == 0 {
				days = []int{1, 2, 3, 4, 5}
			}
			for _, d := range days {
				for hour := range 24 {
					if min(t.minute, hour*60+60)-max(from.minute, hour*60) >= 30 {
						open[d][hour], any = true, true
					}
				}
			}
			from, timesSeen = nil, true
		case strings.Contains("〜～~–-－ー", token):
			dayRange = from == nil && lastDay >= 0 && !timesSeen
		case strings.HasPrefix(token, "休"), token == "closed":
			for _, d := range days {
				open[d] = [24]bool{}
			}
			timesSeen = true
		case token == "午後", token == "pm":
			afternoon = true
		case token == "午前", token == "am":
			afternoon = false
		}
		rest = rest[m[1]:]
	}
	return open, any && from == nil
}

// at tells whether the clinic is open in the hour that begins at t.
func (o *openHours) at(t time.Time, holidays []string) bool {
	t = t.In(JST)
	d := int(t.Weekday())
	if slices.Contains(holidays, t.Format(time.DateOnly)) {
		d = 7
	}
	return o[d][t.Hour()]
}
