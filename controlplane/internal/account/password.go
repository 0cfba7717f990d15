package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Parameters of argon2id: the first set of the OWASP password storage cheat sheet (46 MiB, one pass). Scripts log in with each
// command, so a login must stay cheap enough for that.
const (
	argonMemory  = 46 << 10 // KiB
	argonTime    = 1
	argonThreads = 1
	argonSalt    = 16
	argonKey     = 32
)

// Password lengths in bytes. The upper bound keeps hashing cheap to refuse.
const (
	MinPassword = 12
	MaxPassword = 256
)

var errHash = errors.New("stored password hash is malformed")

// hashPassword returns a PHC string: $argon2id$v=19$m=47104,t=1,p=1$salt$key.
func hashPassword(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // crypto/rand never fails since Go 1.24
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// checkPassword compares in constant time. The parameters are the hash's own, bounded, so that they can be raised later.
func checkPassword(hash, password string) (bool, error) {
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" {
		return false, errHash
	}
	var version, memory, passes uint32
	var threads uint8
	if _, err := fmt.Sscanf(part[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil ||
		memory < 8 || memory > 1<<20 || passes < 1 || passes > 16 || threads < 1 {
		return false, errHash
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(part[4])
	key, err2 := base64.RawStdEncoding.DecodeString(part[5])
	if err1 != nil || err2 != nil || len(key) < 16 || len(key) > 64 {
		return false, errHash
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, nil
}
