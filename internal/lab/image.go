package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// BusyboxImage is the image that a lab's Docker and Podman have: a shell, and whatever
// else the machine's static busybox can do.
//
// Its containers are stopped by SIGKILL, and so at once. A process 1 that has no handler for
// SIGTERM, such as sleep, ignores it, and each stop would take ten seconds.
const BusyboxImage = "busybox"

// imageFile writes the archive that docker load and podman load take, and returns its
// path. (Docker Image Specification v1.2: manifest.json, a configuration, a layer.)
func imageFile(dir string) (string, error) {
	const busybox = "/bin/busybox"
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return "", fmt.Errorf("read %s (Debian: busybox-static): %w", busybox, err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return "", fmt.Errorf("%s --list: %w", busybox, err)
	}
	layer, err := rootLayer(binary, strings.Fields(string(applets)))
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Cmd":        []string{"sh"},
			"Env":        []string{"PATH=/bin"},
			"StopSignal": "SIGKILL",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{BusyboxImage + ":latest"}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return "", err
	}
	var archive tarball
	archive.add(tar.Header{Typeflag: tar.TypeReg, Name: "config.json", Mode: 0o644}, config)
	archive.add(tar.Header{Typeflag: tar.TypeReg, Name: "layer.tar", Mode: 0o644}, layer)
	archive.add(tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644}, manifest)
	text, err := archive.bytes()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "image.tar")
	return path, os.WriteFile(path, text, 0o644)
}

// rootLayer is a root directory with busybox in it.
func rootLayer(busybox []byte, applets []string) ([]byte, error) {
	var root tarball
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "root/", "run/", "sys/", "var/", "tmp/"} {
		mode := int64(0o755)
		if dir == "tmp/" {
			mode = 0o1777
		}
		root.add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: mode}, nil)
	}
	root.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	root.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\n"))
	root.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, name := range applets {
		if name != "busybox" {
			root.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	return root.bytes()
}

// tarball is an archive in memory.
type tarball struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func (t *tarball) add(h tar.Header, content []byte) {
	if t.w == nil {
		t.w = tar.NewWriter(&t.buf)
	}
	h.Size = int64(len(content))
	if t.err == nil {
		t.err = t.w.WriteHeader(&h)
	}
	if t.err == nil {
		_, t.err = t.w.Write(content)
	}
}

func (t *tarball) bytes() ([]byte, error) {
	err := errors.Join(t.err, t.w.Close())
	return t.buf.Bytes(), err
}
