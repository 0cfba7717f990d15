// Command kadomori-demo runs a small MSP with clinics in network namespaces, attacks them, writes the reports and shows what
// came of it. `make demo` calls it, as root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kadomori/kadomori/test/demo"
)

var version = "unknown"

func main() {
	os.Exit(run())
}

func run() int {
	clinics := flag.Int("clinics", 3, "how many clinics, 1 to 100")
	once := flag.Bool("once", false, "check, then end with 0 or say what was wrong")
	out := flag.String("out", "out/demo", "folder for reports, summary and logs")
	showVersion := flag.Bool("version", false, "print the version and end")
	flag.Parse()
	if *showVersion {
		_, _ = fmt.Fprintln(os.Stdout, version)
		return 0
	}
	self, err := os.Executable()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	info, err := os.Stdout.Stat()
	cfg := demo.Config{
		Clinics: *clinics, Once: *once, Bin: filepath.Dir(self), Out: *out, Output: os.Stdout,
		TTY: err == nil && info.Mode()&os.ModeCharDevice != 0,
	}
	if err := demo.Run(ctx, cfg); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "\ndemo:", err)
		return 1
	}
	return 0
}
