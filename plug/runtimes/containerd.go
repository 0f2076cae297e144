package runtimes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vswitch/ctl/config"
)

// containerd's tasks are read from its state directory, where each is a directory:
//
//	/run/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/init.pid
//
// (github.com/containerd/containerd: runtime/v2/bundle.go since 1.4; 2.0 has the same.)
// A task is there from its creation to its deletion, so a container that does not run is
// not known here at all.

// moby is the containerd namespace of Docker, whose containers are found by their names.
const moby = "moby"

func tasksBelow(state string) string { return filepath.Join(state, "io.containerd.runtime.v2.task") }

// task is one container of containerd.
type task struct{ namespace, id string }

// tasks lists those of each namespace that are in what pick returns of its directory. The
// error is errAbsent or ErrNoAnswer.
func (r *Runtimes) tasks(pick func(dir string) ([]string, error)) (list []task, err error) {
	namespaces, err := namesIn(r.containerd)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errAbsent
	case err != nil:
		return nil, fmt.Errorf("%w: containerd: %w", ErrNoAnswer, err)
	}
	for _, namespace := range namespaces {
		if namespace == moby {
			continue
		}
		ids, err := pick(filepath.Join(r.containerd, namespace))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: containerd: %w", ErrNoAnswer, err)
		}
		for _, id := range ids {
			list = append(list, task{namespace, id})
		}
	}
	return list, nil
}

// findTask takes an ID, or the beginning of one that is digits, as nerdctl and Kubernetes
// make them. Others are names that somebody chose, and are given in full.
func (r *Runtimes) findTask(_ context.Context, word string) (Container, error) {
	tasks, err := r.tasks(func(dir string) ([]string, error) {
		_, err := os.Lstat(filepath.Join(dir, word))
		if err != nil {
			return nil, err
		}
		return []string{word}, nil
	})
	if err == nil && len(tasks) == 0 && len(word) >= leastID {
		tasks, err = r.tasks(func(dir string) ([]string, error) {
			ids, err := namesIn(dir)
			return slices.DeleteFunc(ids, func(id string) bool { return !isDigits(id) || !strings.HasPrefix(id, word) }), err
		})
	}
	switch {
	case err != nil:
		return Container{}, err
	case len(tasks) == 0:
		return Container{}, fmt.Errorf("%w: %s:%s (looked below %s)", ErrUnknown, config.ContainerdContainer, word, r.containerd)
	case len(tasks) > 1:
		return Container{}, errors.New(ambiguous(word, tasks))
	}
	t := tasks[0]
	c := Container{Ref: config.ContainerRef{Kind: config.ContainerdContainer, Name: t.id}, ID: t.id, Names: []string{t.id}}
	text, err := readSmall(filepath.Join(r.containerd, t.namespace, t.id, "init.pid"))
	if err != nil { // made, and not started yet
		return c, nil
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 0 && processRuns(pid) {
		c.PID = pid
	}
	return c, c.settle()
}

// isDigits says that an ID was made by a machine.
func isDigits(id string) bool {
	return len(id) > shortID && strings.Trim(id, "0123456789abcdef") == ""
}

// processRuns is false for a process that has ended and was not waited for.
func processRuns(pid int) bool {
	_, err := processStart(pid)
	return err == nil
}

// ambiguous says which tasks are meant by one word.
func ambiguous(word string, tasks []task) string {
	var all []string
	for _, t := range tasks {
		if len(all) == 4 {
			all = append(all, "…")
			break
		}
		all = append(all, fmt.Sprintf("%s in namespace %s", t.id, t.namespace))
	}
	hint := "give more of its ID"
	if !slices.ContainsFunc(tasks, func(t task) bool { return t.id != word }) {
		hint = "name its process instead, as pid:N"
	}
	return fmt.Sprintf("%s:%s is more than one container (%s): %s", config.ContainerdContainer, word, strings.Join(all, ", "), hint)
}

func (r *Runtimes) taskNames(context.Context) (list []string) {
	tasks, _ := r.tasks(namesIn)
	for _, t := range tasks {
		list = append(list, t.id)
	}
	return list
}
