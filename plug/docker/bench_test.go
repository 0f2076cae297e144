package docker

import (
	"fmt"
	"testing"
)

// BenchmarkEndpoint is what one more container costs the driver, beside a thousand.
func BenchmarkEndpoint(b *testing.B) {
	d, _, _ := newDouble(b, "bridges: []")
	must(b, d, "NetworkDriver.CreateNetwork", network1)
	for n := range 1000 {
		must(b, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, fmt.Sprintf("%064d", n), fmt.Sprintf("10.1.%d.%d/16", 1+n/250, 1+n%250)))
	}
	both := `{"NetworkID":"` + net1 + `","EndpointID":"` + ep1 + `"}`
	for b.Loop() {
		must(b, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.200.1/16"))
		must(b, d, "NetworkDriver.Join", both)
		must(b, d, "NetworkDriver.ProgramExternalConnectivity", both)
		must(b, d, "NetworkDriver.Leave", both)
		must(b, d, "NetworkDriver.DeleteEndpoint", both)
	}
}
