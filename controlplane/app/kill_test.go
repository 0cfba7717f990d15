package app

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// childVariable makes this test binary behave as kadomori-control.
const childVariable = "KADOMORI_TEST_CONTROL"

func TestMain(m *testing.M) {
	if config := os.Getenv(childVariable); config != "" {
		os.Exit(Main([]string{"serve", "--config", config}, "test", os.Stdout, os.Stderr)) //nolint:forbidigo // this is the child's main
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is main
}

// TestServeComesBackAfterSIGKILL kills the process hard, which leaves its database server, socket and ready file behind.
func TestServeComesBackAfterSIGKILL(t *testing.T) {
	dir := postgrestest.Dir(t)
	config := filepath.Join(t.TempDir(), "control.yaml")
	text := fmt.Sprintf("data_dir: %s\nlisten: {grpc: '127.0.0.1:0', nats: '127.0.0.1:0', console: '127.0.0.1:0'}\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	launch := func() (*exec.Cmd, *system) {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+config)
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		up := make(chan bool, 1)
		go func() {
			lines := bufio.NewScanner(log)
			for lines.Scan() {
				if strings.Contains(lines.Text(), "control plane is up") {
					up <- true
				}
			}
			close(up)
		}()
		select {
		case ok := <-up:
			if !ok {
				t.Fatal("control plane ended before it was up")
			}
		case <-time.After(time.Minute):
			t.Fatal("control plane was not up in a minute")
		}
		b, err := os.ReadFile(filepath.Join(dir, ReadyFile))
		if err != nil {
			t.Fatal(err)
		}
		return cmd, &system{t: t, dir: dir, addr: Addresses{GRPC: strings.Split(string(b), "\n")[0]}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	first, s := launch()
	op, asAdmin := s.operator(ctx)
	if _, err := op.CreateClinic(asAdmin, &operatorv1.CreateClinicRequest{Clinic: &operatorv1.Clinic{Name: "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	second, s := launch()
	op, asAdmin = s.operator(ctx)
	if list, err := op.ListClinics(asAdmin, &operatorv1.ListClinicsRequest{}); err != nil || len(list.GetClinics()) != 1 {
		t.Errorf("after the kill: %v, %v", list, err)
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("orderly stop: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgresql", "data", "postmaster.pid")); err == nil {
		t.Error("the database server still runs after an orderly stop")
	}
}
