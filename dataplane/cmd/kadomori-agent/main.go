// Command kadomori-agent is the program on the appliance; see package app.
package main

import (
	"os"

	"github.com/kadomori/kadomori/dataplane/app"
)

func main() { os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr)) }
