package app

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/kadomori/kadomori/controlplane/internal/cli"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// TestCommandLineDrivesTheFleet walks through the operator's commands as a script would, with no home directory.
func TestCommandLineDrivesTheFleet(t *testing.T) {
	s := start(t)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	dir := t.TempDir()
	file := func(name, text string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	flags := []string{"--server", s.addr.GRPC, "--ca", filepath.Join(s.dir, "pki", "ca.crt"), "--user", "admin", "--password-file", filepath.Join(s.dir, "admin-password")}
	run := func(args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		code = cli.Main(append(slices.Clone(flags), args...), "test", strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	must := func(want string, args ...string) string {
		t.Helper()
		code, out, errs := run(args...)
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("kadomori %s: exit %d, want %q in\n%s%s", strings.Join(args, " "), code, want, out, errs)
		}
		return out
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if code, out, errs := run(args...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("kadomori %s: exit %d, want %q in\n%s%s", strings.Join(args, " "), code, want, out, errs)
		}
	}

	must("C001", "clinic", "create", "--name", "さくら通り内科クリニック")
	must("さくら通り内科クリニック", "clinic", "list")
	refused("there is no clinic \"C009\"", "claim", "create", "--clinic", "C009")
	var claim struct{ Claim string }
	if err := json.Unmarshal([]byte(must("kdm1-", "claim", "create", "--clinic", "c001", "--output", "json")), &claim); err != nil || claim.Claim == "" {
		t.Fatalf("claim %+v, error %v", claim, err)
	}
	b := newBox(t)
	if _, err := s.enrol(t.Context(), b, claim.Claim); err != nil || b.id != nil {
		t.Fatalf("enrolment without approval: %v, identity %v", err, b.id)
	}
	must("pending", "appliance", "list")
	must("approved", "appliance", "approve", "1")
	refused("it is approved", "appliance", "approve", "1")
	if _, err := s.enrol(t.Context(), b, claim.Claim); err != nil || b.id == nil {
		t.Fatalf("enrolment after approval: %v", err)
	}
	must("受付PC", "device", "name", "--clinic", "C001", "--mac", "02:00:00:00:00:01", "--name", "受付PC")

	plan := file("standard.yaml", "zones: {guest: {mode: observe}}\n")
	must("~ zones.guest.mode: prevent -> observe", "plan", "apply", "standard", "-f", plan, "--dry-run")
	must("published to 1 clinics", "plan", "apply", "standard", "-f", plan, "--reason", "trial")
	must("published to 0 clinics", "plan", "apply", "standard", "-f", plan)
	must("guest: {mode: observe}", "plan", "get", "standard")
	refused(`zones.guest.mode: "no"`, "plan", "apply", "standard", "-f", file("bad.yaml", "zones: {guest: {mode: no}}\n"))
	must("published", "override", "set", "--clinic", "C001", "-f", file("o.yaml", "never_block: [203.0.113.0/24]\n"), "--reason", "vendor", "--for", "1h")
	if out := must("zones.guest.mode", "plan", "explain", "--clinic", "C001"); !strings.Contains(out, "never_block.203.0.113.0/24") || !strings.Contains(out, "vendor") {
		t.Errorf("explained\n%s", out)
	}
	refused("which never_block protects", "signature", "publish", file("c2.addresses", "203.0.113.9\n"))
	refused("begin its name with", "signature", "publish", file("own.domains", "evil.example\n"))
	must("1", "signature", "publish", filepath.Join(dir, "own.domains"), "--kind", "own=malware", file("a.rules", "alert tcp any any -> any any (msg:\"x\"; sid:9;)\n"))
	refused("a.rules:1: no sid", "signature", "publish", file("a.rules", "alert tcp any any -> any any (msg:\"x\";)\n"))
	must("saved", "setting", "set", "msp.name=株式会社みなとIT", "msp.hours=平日 9:00〜18:00")
	must("株式会社みなとIT", "setting", "get")
	refused("known are msp.desk", "setting", "set", "msp.fax=1")
	must("0 clinics change", "group", "apply", "dialysis", "-f", file("g.yaml", "zones: {guest: {mode: notify}}\n"), "--dry-run")
	must("0 clinics change", "group", "apply", "dialysis", "-f", filepath.Join(dir, "g.yaml"))
	must("~ zones.guest.mode: observe -> notify", "clinic", "move", "C001", "--group", "dialysis", "--reason", "new ward")
	must("dialysis", "plan", "list")
	refused("it is at revision 2", "plan", "apply", "standard", "-f", plan, "--base", "1")
	refused("nothing to roll out", "rollout", "plan", "--plan", "standard", "--reason", "x")
	must("staged", "plan", "apply", "standard", "-f", file("next.yaml", "zones: {iot: {mode: prevent}}\n"), "--stage", "--reason", "iot")
	must("canary", "rollout", "plan", "--plan", "standard", "--reason", "iot", "--ring", "canary=C001")
	must("running", "rollout", "start", "1", "--output", "json")
	refused("under way", "plan", "apply", "standard", "-f", plan)
	refused("a reason is needed", "rollout", "abort", "1")
	must("aborted", "rollout", "abort", "1", "--reason", "test")
	must("aborted", "rollout", "list")
	must("queued", "report", "request", "--clinic", "C001", "--month", "2026-10")
	refused("month", "report", "request", "--clinic", "C001", "--month", "October")
	must("VERDICT", "report", "list")
	refused("report 5: not found", "report", "get", "5")
	must("streams", "ledger", "--output", "json")
	must("CERTAINTY", "infected", "--clinic", "C001")
	must("is on its way", "command", "bypass", "1", "--for", "5m", "--reason", "vendor")
	must("on for 5m0s", "command", "list")
	must("waits for a second person", "command", "factory-reset", "1", "--reason", "stock")
	refused("which device", "command", "quarantine", "1", "--reason", "x")
	must("is out", "appliance", "revoke", "1", "--reason", "test")
	must("revoked", "appliance", "list", "--output", "yaml")

	refused("password is wrong", "clinic", "list", "--password-file", file("pw", "not the password"))
	refused("can't reach the control plane", "clinic", "list", "--server", "127.0.0.1:1")
	refused("want table, json or yaml", "clinic", "list", "--output", "xml")
}

// TestLoginIsRememberedAndPinned logs in by fingerprint, works without flags, and refuses another authority.
func TestLoginIsRememberedAndPinned(t *testing.T) {
	s := start(t)
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	run := func(stdin string, args ...string) (int, string) {
		var out bytes.Buffer
		code := cli.Main(args, "test", strings.NewReader(stdin), &out, &out)
		return code, out.String()
	}
	password, err := os.ReadFile(filepath.Join(s.dir, "admin-password"))
	if err != nil {
		t.Fatal(err)
	}
	if code, out := run("", "clinic", "list"); code == 0 || !strings.Contains(out, "kadomori login") {
		t.Errorf("before the login: exit %d\n%s", code, out)
	}
	if code, out := run("", "login", "--server", s.addr.GRPC, "--user", "admin", "--pin", "00"); code == 0 || !strings.Contains(out, "somebody may be in between") {
		t.Errorf("wrong pin: exit %d\n%s", code, out)
	}
	if code, out := run("no\n", "login", "--server", s.addr.GRPC, "--user", "admin"); code == 0 || !strings.Contains(out, "nothing was sent") {
		t.Errorf("authority not trusted: exit %d\n%s", code, out)
	}
	if code, out := run("yes\n"+string(password), "login", "--server", s.addr.GRPC, "--user", "admin"); code != 0 || !strings.Contains(out, "Logged in") {
		t.Fatalf("login: exit %d\n%s", code, out)
	}
	info, err := os.Stat(filepath.Join(home, "kadomori", "login.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("login file: %v %v", info, err)
	}
	if code, out := run("", "clinic", "list"); code != 0 {
		t.Errorf("after the login: exit %d\n%s", code, out)
	}
	if code, _ := run("", "logout"); code != 0 {
		t.Error("logout failed")
	}
	if code, _ := run("", "clinic", "list"); code == 0 {
		t.Error("a command worked after logout")
	}
}

// TestAuditLogIsVerifiedFromOutside runs kadomori-control audit verify beside a serving control plane.
func TestAuditLogIsVerifiedFromOutside(t *testing.T) {
	s := start(t)
	config := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(config, []byte("data_dir: "+s.dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := Main([]string{"audit", "verify", "--config", config}, "test", &out, &out); code != 0 || !strings.Contains(out.String(), "rows fit") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
	s.stop()
	out.Reset()
	if code := Main([]string{"audit", "verify", "--config", config}, "test", &out, &out); code == 0 || !strings.Contains(out.String(), "serve running") {
		t.Errorf("while nothing serves: exit %d\n%s", code, out.String())
	}
}

// TestBackupOfAServingSystemIsRestoredElsewhere takes a backup while everything runs and brings it up in another place.
func TestBackupOfAServingSystemIsRestoredElsewhere(t *testing.T) {
	s := start(t)
	op, asAdmin := s.operator(t.Context())
	if _, err := op.CreateClinic(asAdmin, &operatorv1.CreateClinicRequest{Clinic: &operatorv1.Clinic{Name: "さくら通り内科クリニック"}}); err != nil {
		t.Fatal(err)
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	write := func(name, text string) string {
		f := filepath.Join(tmp, name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	run := func(want string, ok bool, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if code := Main(args, "test", &out, &out); (code == 0) != ok || !strings.Contains(out.String(), want) {
			t.Fatalf("%s: exit %d, want %q in\n%s", args[0], code, want, out.String())
		}
	}
	here, file, identity := write("here.yaml", "data_dir: "+s.dir+"\n"), filepath.Join(tmp, "b.age"), write("key.txt", key.String()+"\n")
	run("1 clinics", true, "backup", "--config", here, "--out", file, "--recipient", key.Recipient().String())
	run("stop it first", false, "restore", "--config", here, "--in", file, "--identity", identity)
	password, err := os.ReadFile(filepath.Join(s.dir, "admin-password"))
	if err != nil {
		t.Fatal(err)
	}
	s.stop()

	other := postgrestest.Dir(t)
	run("1 clinics", true, "restore", "--config", write("there.yaml", "data_dir: "+other+"\n"), "--in", file, "--identity", identity)
	again := startIn(t, other)
	if b, err := os.ReadFile(filepath.Join(other, "admin-password")); err != nil || string(b) != string(password) {
		t.Errorf("password file: %v", err)
	}
	op, asAdmin = again.operator(t.Context())
	if list, err := op.ListClinics(asAdmin, &operatorv1.ListClinicsRequest{}); err != nil || len(list.GetClinics()) != 1 {
		t.Errorf("clinics after the restore: %v, %v", list, err)
	}
}
