package page

import (
	"errors"
	"strconv"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Flash is the same-day report of an incident: what was seen, what to do, whom to call, on one page.
type Flash struct {
	Title, At, More, NextTitle, Next string
	Cards                            []Card
}

// ErrNothingToTell means that no device is under suspicion: there is no incident to report at once.
var ErrNothingToTell = errors.New("no device is under suspicion")

// MakeShort turns the page into the director's summary: page 1 alone, which names no page numbers.
func (p *Page) MakeShort() { p.Short = true }

// MakeFlash turns the page into a same-day report of the devices under suspicion. One is shown in full; more than one would not leave room to act on the first.
func (p *Page) MakeFlash(f *month.Facts, w *wording.Set) error {
	if len(f.Infected.Devices) == 0 {
		return ErrNothingToTell
	}
	m, err := month.Parse(f.Month)
	if err != nil {
		return err
	}
	k := newMaker(f, w, m)
	p.Flash = Flash{
		Title: k.say("flash.title"), At: k.say("flash.at", "at", k.moment(f.Issued)), NextTitle: k.say("flash.next_title"), Next: k.say("flash.next"),
	}
	p.RunTitle = k.say("flash.name") + "　" + k.when(f.Issued).Format("2006年1月2日")
	p.Greeting = k.say("flash.greeting")
	p.DocTitle = p.RunTitle + " " + f.Clinic.Name
	cards := f.Infected.Devices[:1]
	for i := range cards {
		p.Flash.Cards = append(p.Flash.Cards, k.card(&cards[i]))
	}
	if n := len(f.Infected.Devices) - len(cards); n > 0 {
		p.Flash.More = k.say("flash.more", "n", strconv.Itoa(n))
	}
	return k.err
}
