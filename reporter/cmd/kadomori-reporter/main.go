// Command kadomori-reporter turns one month of one clinic into a Japanese report: a web page and a PDF.
package main

import (
	"os"

	"github.com/kadomori/kadomori/reporter/app"
)

func main() {
	os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr))
}
