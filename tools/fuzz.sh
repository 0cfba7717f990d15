#!/usr/bin/env bash
# Runs every native fuzz target of every module for FUZZTIME each. Called by `make fuzz-short`.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-20s}
failed=0
while IFS= read -r file; do
	dir=$(dirname "$file")
	grep -oE '^func (Fuzz[A-Za-z0-9_]*)' "$file" | awk '{print $2}' | while IFS= read -r target; do
		echo "fuzz: $dir $target for $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$dir" | tail -n 2
	done || failed=1
done < <(git ls-files '*_test.go' | xargs -r grep -lE '^func Fuzz')
exit "$failed"
