package harness

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// CPU is the processor time that a process has used, all its threads together.
func CPU(pid int) (time.Duration, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// Memory is what a process occupies, in MiB.
type Memory struct {
	PSS  float64 // all of it, where what is shared counts in parts
	Anon float64 // the same of what is no file and no shared memory
}

// MemoryOf reads the memory of a process.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, err
	}
	sizes := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+):\s+(\d+) kB`).FindAllStringSubmatch(string(text), -1) {
		kb, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return Memory{}, err
		}
		sizes[m[1]] = kb / 1024
	}
	return Memory{PSS: sizes["Pss"], Anon: sizes["Pss_Anon"]}, nil
}

// CPU is the processor time that a process has used. A process that is gone fails the part.
func (b *B) CPU(pid int) time.Duration {
	t, err := CPU(pid)
	if err != nil {
		b.Fatalf("processor time of process %d: %v", pid, err)
	}
	return t
}

// Memory is what a process occupies.
func (b *B) Memory(pid int) Memory {
	m, err := MemoryOf(pid)
	if err != nil {
		b.Fatalf("memory of process %d: %v", pid, err)
	}
	return m
}
