#!/usr/bin/env bash
# Installs the Debian packages that building, testing and the demo need. Idempotent: does nothing when all are there.
# Called by `make setup`; needs root only when something is missing.
set -euo pipefail

packages=(
	# build: C compilers and the libraries that the engine links
	clang llvm clang-format libbpf-dev linux-libc-dev gcc pkg-config libvectorscan-dev libpcre2-dev
	# run: database, report renderer and its fonts
	postgresql weasyprint python3-munkres python3-ufolib2 python3-unicodedata2 fonts-morisawa-bizud-gothic fonts-noto-cjk
	# test and demo: namespaces, real clients, servers and attackers, a browser, PDF tools
	iproute2 ethtool iputils-ping procps curl bind9-dnsutils dnsmasq-base udhcpc nmap netcat-openbsd openssl
	chromium poppler-utils nftables xdp-tools shellcheck swtpm tcpdump libndpi-bin wireshark-common
)

missing=()
for p in "${packages[@]}"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$p")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "setup: missing Debian packages: ${missing[*]}" >&2
	echo "setup: run as root, or: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "setup: apt-get could not install the packages above" >&2
	exit 1
fi
# The Debian package starts a cluster of its own; ours is private and on a socket, so that one may rest.
if [ -d /etc/postgresql/15/main ] && command -v pg_ctlcluster >/dev/null; then
	pg_ctlcluster 15 main stop >/dev/null 2>&1 || true
fi
