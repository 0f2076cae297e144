package runtimes

import (
	"context"
	"errors"
	"fmt"
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

// tasks lists those that pick takes, and says whether the directory is there.
func (r *Runtimes) tasks(pick func(id string) bool) (list []task, there bool) {
	if _, err := os.Stat(r.containerd); err != nil {
		return nil, false
	}
	for _, namespace := range namesIn(r.containerd) {
		if namespace == moby {
			continue
		}
		for _, id := range namesIn(filepath.Join(r.containerd, namespace)) {
			if pick(id) && len(list) < maxList {
				list = append(list, task{namespace, id})
			}
		}
	}
	return list, true
}

// findTask takes an ID, or the beginning of one that is digits, as nerdctl and Kubernetes
// make them. Others are names that somebody chose, and are given in full.
func (r *Runtimes) findTask(_ context.Context, word string) (Container, error) {
	tasks, there := r.tasks(func(id string) bool { return id == word })
	if !there {
		return Container{}, errAbsent
	}
	if len(tasks) == 0 && len(word) >= leastID {
		tasks, _ = r.tasks(func(id string) bool { return isDigits(id) && strings.HasPrefix(id, word) })
	}
	switch {
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
	tasks, _ := r.tasks(func(string) bool { return true })
	for _, t := range tasks {
		list = append(list, t.id)
	}
	return list
}
