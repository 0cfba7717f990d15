// Command kadomori-fleetbench measures a control plane under a simulated fleet and writes the figures as JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kadomori/kadomori/test/fleetsim"
)

func main() {
	control := flag.String("control", "bin/kadomori-control", "program to measure")
	appliances := flag.Int("appliances", 8000, "appliances, one in each clinic")
	withNATS := flag.Int("nats", 1000, "of these, with a NATS connection too")
	clinics := flag.Int("plan-clinics", 1000, "clinics of the plan that is changed")
	poll := flag.Bool("poll", true, "also measure polling every 30 s")
	out := flag.String("out", "out/bench/fleet.json", "file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *out, fleetsim.BenchConfig{
		Control: *control, Appliances: *appliances, NATS: *withNATS, PlanClinics: *clinics, Poll: *poll, Progress: os.Stderr,
	})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kadomori-fleetbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, cfg fleetsim.BenchConfig) error {
	if missing := fleetsim.Needs(cfg.Appliances); missing != "" {
		return fmt.Errorf("needs %s", missing)
	}
	res, err := fleetsim.Bench(ctx, cfg)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o750); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(out, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	fmt.Println(string(b))
	return nil
}
