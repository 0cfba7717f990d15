package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// askSecret reads a line without showing it when standard input is a terminal.
func (s *session) askSecret(in *bufio.Reader, prompt string) (string, error) {
	f, ok := s.stdin.(*os.File)
	if !ok {
		return s.ask(in, prompt)
	}
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil { // no terminal: a pipe
		return s.ask(in, prompt)
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return "", fmt.Errorf("hide password: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
		_, _ = fmt.Fprintln(s.stderr)
	}()
	_, _ = fmt.Fprint(s.stderr, prompt)
	line, err := in.ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
