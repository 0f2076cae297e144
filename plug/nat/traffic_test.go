package nat

import (
	"testing"
)

func TestMasquerade(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.out.MustExec("ip", "route", "add", "10.0.0.0/8", "via", host4)
	g.out.MustExec("ip", "route", "add", "fd00::/8", "via", host6)
	g.served([]Gateway{red, blue})

	for _, proto := range []string{"tcp", "udp"} {
		g.reaches(g.r1.Namespace, proto, "192.0.2.9:80", host4)
		g.reaches(g.r1.Namespace, proto, "[2001:db8::9]:80", host6)
		g.reaches(g.r2.Namespace, proto, "10.1.0.2:80", "10.1.0.3")
		g.reaches(g.r2.Namespace, proto, "[fd01::2]:80", "fd01::3")
		g.reaches(g.host.Namespace, proto, "10.1.0.2:80", "10.1.0.1")
		g.silent(g.out.Namespace, proto, "10.1.0.2:80")
		g.silent(g.out.Namespace, proto, "[fd01::2]:80")
		g.silent(g.r1.Namespace, proto, "10.2.0.2:80")
		g.silent(g.r1.Namespace, proto, "[fd02::2]:80")
	}
	for _, to := range []string{outside4, outside6} {
		if err := g.r1.Ping(to); err != nil {
			t.Error(err)
		}
	}
}

func TestPublish(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	forwards := []Forward{
		forward("", 8080, "tcp", "10.1.0.2:80", "red"),
		forward("", 8080, "udp", "10.1.0.2:80", "red"),
		forward("", 8080, "tcp", "[fd01::2]:80", "red"),
		forward("", 8080, "udp", "[fd01::2]:80", "red"),
		forward(host4, 8081, "tcp", "10.1.0.2:80", "red"),
		forward("127.0.0.1", 8082, "tcp", "10.1.0.2:80", "red"),
		forward(host6, 8081, "udp", "[fd01::2]:80", "red"),
	}
	g.served([]Gateway{red, blue}, forwards...)
	for _, proto := range []string{"tcp", "udp"} {
		g.reaches(g.out.Namespace, proto, "192.0.2.1:8080", outside4)
		g.reaches(g.out.Namespace, proto, "[2001:db8::1]:8080", outside6)
		g.reaches(g.host.Namespace, proto, "127.0.0.1:8080", "10.1.0.1")
		g.reaches(g.host.Namespace, proto, "192.0.2.1:8080", "10.1.0.1")
		g.reaches(g.host.Namespace, proto, "[2001:db8::1]:8080", "fd01::1")
		g.reaches(g.r2.Namespace, proto, "192.0.2.1:8080", "10.1.0.1")
		g.reaches(g.r2.Namespace, proto, "10.1.0.1:8080", "10.1.0.1")
		g.reaches(g.r1.Namespace, proto, "192.0.2.1:8080", "10.1.0.1") // itself
		g.reaches(g.r2.Namespace, proto, "[2001:db8::1]:8080", "fd01::1")
		g.reaches(g.b1.Namespace, proto, "192.0.2.1:8080", "10.1.0.1")
	}
	if missing := g.check(); missing {
		t.Error("something is missing")
	}
}
