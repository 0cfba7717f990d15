// Command kadomori-agent is the program on the appliance; see package app.
package main

import (
	"os"

	"github.com/kadomori/kadomori/dataplane/app"
)

// version is set by the build.
var version string

func main() {
	if version != "" {
		app.Version = version
	}
	os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr))
}
