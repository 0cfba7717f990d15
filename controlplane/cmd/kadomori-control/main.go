// Command kadomori-control is the control plane: it serves appliances, operators and the console.
package main

import (
	"os"

	"github.com/kadomori/kadomori/controlplane/app"
)

var version = "unknown" // set by the linker

func main() { os.Exit(app.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
