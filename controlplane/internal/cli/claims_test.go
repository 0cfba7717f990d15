package cli

import (
	"strings"
	"testing"
)

func TestListOfBoxesIsReadAsSpreadsheetsWriteIt(t *testing.T) {
	t.Parallel()
	got, err := readOrders(strings.NewReader("\ufeffClinic, Serial,name\r\nC001,KM-1,受付\r\n2,KM-2\r\nC003,,\"a, b\"\r\n"))
	if err != nil || len(got) != 3 || got[0] != (order{"C001", "KM-1", "受付", 2}) || got[1] != (order{"2", "KM-2", "", 3}) || got[2].name != "a, b" {
		t.Errorf("%+v %v", got, err)
	}
	for text, want := range map[string]string{
		"":                              "EOF",
		"clinic,seral\n":                `column "seral"`,
		"serial,name\nx,y\n":            "no column clinic",
		"clinic,serial\nC1,a\nC2,a\n":   "line 3: serial a stands on line 2",
		"clinic,serial\n,a\n":           "line 2: no clinic",
		"clinic,serial\n\"C1,a\nC2,b\n": "read list",
	} {
		if _, err := readOrders(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestKindOfAListComesFromItsNameOrTheFlag(t *testing.T) {
	t.Parallel()
	given := map[string]string{"own": "malware"}
	for name, want := range map[string]string{
		"c2.addresses": "c2", "c2-own.domains": "c2", "bad-site.domains": "bad-site", "scanner-x.addresses": "scanner", "own.domains": "malware", "a.rules": "",
	} {
		if got, err := kindOf(name, given); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", name, got, err, want)
		}
	}
	if _, err := kindOf("c2x.domains", nil); err == nil {
		t.Error("a name that only looks like a kind was taken")
	}
}

func TestTableLinesUpWithJapaneseAndKeepsTheTerminalSafe(t *testing.T) {
	t.Parallel()
	var tab table
	tab.row("A", "B")
	tab.row("受付PC", "x\x1b[31m")
	tab.row("", "y")
	var out strings.Builder
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "A       B\n受付PC  x [31m\n-       y\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
