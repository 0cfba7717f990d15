package fleet

import (
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// plainCredentials are for tests on loopback; a real appliance always has a certificate.
func plainCredentials() credentials.TransportCredentials { return insecure.NewCredentials() }
