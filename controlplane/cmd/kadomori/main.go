// Command kadomori is the operator's command line.
package main

import (
	"os"

	"github.com/kadomori/kadomori/controlplane/internal/cli"
)

var version = "unknown" // set by the linker

func main() { os.Exit(cli.Main(os.Args[1:], version, os.Stdin, os.Stdout, os.Stderr)) }
