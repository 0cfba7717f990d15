package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestLoginSessionAndLogout(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ctx := context.Background()
	now := time.Now()
	a, err := New(Config{Pool: db.App, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "admin-password")
	if err := a.Bootstrap(ctx, file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	password := strings.TrimSpace(string(b))
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 || len(password) != 24 {
		t.Errorf("password file %v, %d bytes", info.Mode(), len(password))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := a.Bootstrap(ctx, file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a second start made a second password")
	}
	token, op, expires, err := a.Login(ctx, "admin", password, "cli")
	if err != nil || op.Role != Admin || expires.Sub(now) > SessionLife {
		t.Fatalf("login: %+v until %s, error %v", op, expires, err)
	}
	var stored int
	if err := db.App.QueryRow(ctx, `SELECT count(*) FROM operator_session WHERE convert_from(token_hash, 'LATIN1') = $1`, token).Scan(&stored); err != nil || stored != 0 {
		t.Errorf("token stored as it is: %d, %v", stored, err)
	}
	if got, err := a.Session(ctx, token); err != nil || got.Name != "admin" {
		t.Errorf("session: %+v %v", got, err)
	}
	for _, bad := range []string{"", "x", token[:len(token)-1] + "_", strings.Repeat("A", 43)} {
		if _, err := a.Session(ctx, bad); !errors.Is(err, ErrSession) {
			t.Errorf("token %q: %v", bad, err)
		}
	}
	now = now.Add(SessionLife + time.Second)
	if _, err := a.Session(ctx, token); !errors.Is(err, ErrSession) {
		t.Errorf("session past its end: %v", err)
	}
	now = now.Add(-SessionLife)
	if err := a.Logout(ctx, token); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Session(ctx, token); !errors.Is(err, ErrSession) {
		t.Errorf("session after logout: %v", err)
	}
}

func TestWrongLoginsLookAlikeAndAreLimited(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ctx := context.Background()
	now := time.Now()
	a, err := New(Config{Pool: db.App, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(ctx, "test", Operator{Name: "yamada", Role: Analyst}, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	if err := a.Create(ctx, "test", Operator{Name: "yamada", Role: Analyst}, "correct horse battery"); !errors.Is(err, ErrExists) {
		t.Errorf("taken name: %v", err)
	}
	for _, c := range []struct{ name, password string }{{"yamada", "wrong"}, {"nobody", "wrong"}, {"Yamada'; --", "x"}, {"yamada", strings.Repeat("x", 10_000)}} {
		if _, _, _, err := a.Login(ctx, c.name, c.password, "cli"); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for range loginBurst {
		_, _, _, err = a.Login(ctx, "yamada", "wrong", "cli")
	}
	if !errors.Is(err, ErrLimited) {
		t.Errorf("after %d tries: %v", loginBurst+2, err)
	}
	if _, _, _, err := a.Login(ctx, "yamada", "correct horse battery", "cli"); !errors.Is(err, ErrLimited) {
		t.Errorf("right password while limited: %v", err)
	}
	now = now.Add(loginRefill)
	if _, _, _, err := a.Login(ctx, "yamada", "correct horse battery", "cli"); err != nil {
		t.Errorf("right password after the pause: %v", err)
	}
	for _, bad := range []struct {
		op       Operator
		password string
	}{{Operator{Name: "X", Role: Admin}, "long enough password"}, {Operator{Name: "xx", Role: "root"}, "long enough password"}, {Operator{Name: "xx", Role: Admin}, "short"}} {
		if err := a.Create(ctx, "test", bad.op, bad.password); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestPasswordChangeEndsSessions(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ctx := context.Background()
	a, err := New(Config{Pool: db.App})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Create(ctx, "test", Operator{Name: "suzuki", Role: Lead}, "first password 1"); err != nil {
		t.Fatal(err)
	}
	token, _, _, err := a.Login(ctx, "suzuki", "first password 1", "console")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetPassword(ctx, "admin", "suzuki", "second password 2"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Session(ctx, token); !errors.Is(err, ErrSession) {
		t.Errorf("old session: %v", err)
	}
	if _, _, _, err := a.Login(ctx, "suzuki", "first password 1", "console"); !errors.Is(err, ErrLogin) {
		t.Errorf("old password: %v", err)
	}
	if err := a.SetPassword(ctx, "admin", "nobody", "second password 2"); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown operator: %v", err)
	}
}

func TestHashesAreCheckedBeforeTheyAreBelieved(t *testing.T) {
	t.Parallel()
	h := hashPassword("secret password")
	if ok, err := checkPassword(h, "secret password"); !ok || err != nil {
		t.Errorf("right password: %v %v", ok, err)
	}
	if ok, err := checkPassword(h, "secret passwore"); ok || err != nil {
		t.Errorf("wrong password: %v %v", ok, err)
	}
	for _, bad := range []string{"", "plain", "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAA", strings.Replace(h, "v=19", "v=16", 1)} {
		if ok, err := checkPassword(bad, "x"); ok || err == nil {
			t.Errorf("%q: %v %v", bad, ok, err)
		}
	}
}
