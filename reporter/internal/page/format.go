package page

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/chart"
)

// comma prints 1284 as 1,284.
func comma(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := ""
	if n < 0 {
		neg, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return neg + s
}

func tenths(n int64) string { return chart.Tenths(n) }

// unit is a decimal unit of bytes.
type unit struct {
	name string
	size int64
}

var units = []unit{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

// unitOf is the unit in which n has one to three digits before the point; GB is the house's unit and holds to 9,999.
func unitOf(n int64) unit {
	for _, u := range units {
		if n >= u.size && (u.name != "TB" || n >= 1e13) {
			return u
		}
	}
	return units[len(units)-1]
}

// in prints n in u with one decimal, bytes without.
func (u unit) in(n int64) string {
	if u.size == 1 {
		return comma(n)
	}
	t := (n + u.size/20) / (u.size / 10)
	return comma(t/10) + "." + strconv.FormatInt(t%10, 10)
}

func volume(n int64) string {
	u := unitOf(n)
	return u.in(n) + " " + u.name
}

// duration prints milliseconds in the two largest parts, rounded up so that no outage vanishes; nothing is 0分.
func duration(ms int64) string {
	switch {
	case ms <= 0:
		return "0分"
	case ms < 1000:
		return "1秒未満"
	case ms < 60_000:
		return fmt.Sprintf("%d秒", (ms+999)/1000)
	}
	minutes := (ms + 59_999) / 60_000
	switch {
	case minutes < 60:
		return fmt.Sprintf("%d分", minutes)
	case minutes < 24*60:
		if minutes%60 == 0 {
			return fmt.Sprintf("%d時間", minutes/60)
		}
		return fmt.Sprintf("%d時間%d分", minutes/60, minutes%60)
	}
	hours := (minutes + 59) / 60
	if hours%24 == 0 {
		return fmt.Sprintf("%d日", hours/24)
	}
	return fmt.Sprintf("%d日%d時間", hours/24, hours%24)
}

func dateWithDay(t time.Time) string {
	return fmt.Sprintf("%d月%d日（%s）", t.Month(), t.Day(), weekdays[t.Weekday()])
}
