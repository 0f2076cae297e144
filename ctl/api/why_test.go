package api_test

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

func TestWhyParameters(t *testing.T) {
	svc := &apitest.Service{}
	socket, _ := start(t, svc, api.Limits{})
	for _, tc := range []struct {
		path string
		want any // nil: refused
	}{
		{"why?address=10.0.0.5", api.WhyQuery{Address: "10.0.0.5"}},
		{"why?address=::ffff:10.0.0.5&bridge=br0", api.WhyQuery{Address: "10.0.0.5", Bridge: "br0"}},
		{"why?address=2001:DB8:0::1", api.WhyQuery{Address: "2001:db8::1"}},
		{"why?address=02-00-00-00-00-0A", api.WhyQuery{Address: "02:00:00:00:00:0a"}},
		{"why", nil},
		{"why?address=veth1", nil},
		{"why?address=fe80::1%25eth0", nil},
		{"why?address=02:00:00:00:00:01:02", nil},
		{"why?adress=10.0.0.5", nil},
		{"talkers", api.TalkersQuery{Window: 5 * time.Second, N: 20}},
		{"talkers?window=250ms&n=3&bridge=br0", api.TalkersQuery{Window: 250 * time.Millisecond, N: 3, Bridge: "br0"}},
		{"talkers?window=2m", nil},
		{"talkers?window=5", nil},
		{"talkers?n=0", nil},
		{"talkers?n=1e3", nil},
	} {
		status, _, _ := request(t, socket, http.MethodGet, "/v1/"+tc.path, nil)
		asked := svc.Asked()
		switch {
		case tc.want == nil && (status != http.StatusBadRequest || len(asked) > 0):
			t.Errorf("%s: status %d, asked %+v", tc.path, status, asked)
		case tc.want != nil && (status != http.StatusOK || !reflect.DeepEqual(asked, []any{tc.want})):
			t.Errorf("%s: status %d, asked %+v, want %+v", tc.path, status, asked, tc.want)
		}
	}
}
